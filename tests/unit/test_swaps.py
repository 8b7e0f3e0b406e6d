"""Records of model-updates: what they ask for, and which of them goes live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agents.generation import swaps
from agents.generation.swaps import Lane, Swap, decode_swap
from schemas import codec
from schemas.errors import ArtifactInvalid, ArtifactUnavailable, EventInvalid, ModelBusy
from schemas.events import ModelUpdate
from streams.records import Record

SHA256 = "0" * 64


def record(value: bytes | None, key: bytes | None = b"tone", offset: int = 0) -> Record:
    return Record("t", 0, offset, key, value, [], 0)


def update(**fields: Any) -> bytes:
    base = {"adapter": "tone", "model_version": "v1", "origin": "online", "published_ms": 1}
    return codec.encode(ModelUpdate(**(base | fields)))


ARTIFACT = {"artifact_uri": "/adapters/v1", "artifact_sha256": SHA256}


def test_an_update_names_version_and_weights() -> None:
    swap = decode_swap(record(update(**ARTIFACT)))
    assert (swap.adapter, swap.version) == ("tone", "v1")
    assert (swap.uri, swap.sha256) == ("/adapters/v1", SHA256)


@pytest.mark.parametrize(
    "value", [None, update(), update(origin="base"), update(origin="base", **ARTIFACT)]
)
def test_a_tombstone_and_an_update_without_an_artifact_mean_the_base_model(
    value: bytes | None,
) -> None:
    swap = decode_swap(record(value))
    assert (swap.adapter, swap.version, swap.uri) == ("tone", "base", "")


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"{", b"tone", "Not a valid ModelUpdate"),
        (update(), b"other", "The key is 'other'"),
        (update(artifact_uri="/a"), b"tone", "without an artifact_sha256"),
        (update(artifact_sha256=SHA256), b"tone", "the other way round"),
        (update(model_version="base", **ARTIFACT), b"tone", "without an adapter"),
        (None, None, "names no adapter"),
        (None, b"x" * 201, "names no adapter"),
    ],
)
def test_a_record_that_says_nothing_is_refused(
    value: bytes | None, key: bytes | None, reason: str
) -> None:
    with pytest.raises(EventInvalid, match=reason):
        decode_swap(record(value, key))


class Engine:
    """Brings versions up; `faults` are raised, one a try, and `gate` holds a try back."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.settled: dict[str, str] = {}
        self.faults: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.lane = Lane(self.bring, self.judge)

    async def bring(self, swap: Swap) -> bool:
        self.tried.append(swap.version)
        await self.gate.wait()
        if faults := self.faults.get(swap.version):
            raise faults.pop(0)
        return self.lane.wanted is swap

    def judge(self, swap: Swap, error: Exception | None) -> None:
        assert swap.version not in self.settled
        self.settled[swap.version] = type(error).__name__ if error else ""

    def offer(self, *names: str) -> None:
        for name in names:
            self.lane.offer(Swap("tone", name, record(b"", offset=int(name[1:]))))

    @property
    def live(self) -> str | None:
        return self.lane.live.version if self.lane.live else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.lane.run())
        try:
            async with asyncio.timeout(5):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_only_the_newest_of_what_waits_is_loaded() -> None:
    engine = Engine()
    engine.offer("v1", "v2", "v3")
    async with engine.running():
        await engine.lane.idle.wait()
        assert (engine.tried, engine.live) == (["v3"], "v3")
        engine.offer("v4")
        await engine.lane.idle.wait()
    assert (engine.tried, engine.live) == (["v3", "v4"], "v4")
    assert engine.settled == {"v1": "", "v2": "", "v3": "", "v4": ""}


@pytest.mark.asyncio
async def test_broken_ones_make_way_for_the_newest_good_one_that_is_newer_than_the_live() -> None:
    engine = Engine()
    engine.faults = {name: [ArtifactInvalid("broken")] for name in ("v3", "v4", "v5")}
    engine.offer("v1", "v2", "v3", "v4")
    async with engine.running():
        await engine.lane.idle.wait()
        assert (engine.tried, engine.live) == (["v4", "v3", "v2"], "v2")
        engine.offer("v5")
        await engine.lane.idle.wait()
        # v1 is older than what is live.
        assert (engine.tried[3:], engine.live) == (["v5"], "v2")
    refused = {name for name, error in engine.settled.items() if error == "ArtifactInvalid"}
    assert refused == {"v3", "v4", "v5"}


@pytest.mark.asyncio
async def test_what_cannot_be_had_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "_PAUSE_S_FIRST", 0.001)
    engine = Engine()
    engine.faults = {"v1": [ArtifactUnavailable("down"), ModelBusy("full")]}
    async with engine.running():
        engine.offer("v1")
        await engine.lane.idle.wait()
    assert (engine.tried, engine.live) == (["v1"] * 3, "v1")


@pytest.mark.asyncio
async def test_something_newer_does_not_wait_for_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swaps, "_PAUSE_S_FIRST", 60.0)
    engine = Engine()
    engine.faults = {"v1": [ArtifactUnavailable("down")] * 9}
    async with engine.running():
        engine.offer("v1")
        await until(lambda: bool(engine.tried))
        engine.offer("v2")
        await engine.lane.idle.wait()
    assert (engine.tried, engine.live) == (["v1", "v2"], "v2")
    assert engine.settled == {"v1": "", "v2": ""}


@pytest.mark.asyncio
async def test_a_version_that_was_overtaken_while_it_was_fetched_can_still_be_fallen_back_to() -> (
    None
):
    engine = Engine()
    engine.faults = {"v2": [ArtifactInvalid("broken")]}
    engine.gate.clear()
    async with engine.running():
        engine.offer("v1")
        await until(lambda: bool(engine.tried))
        engine.offer("v2")
        engine.gate.set()
        await engine.lane.idle.wait()
    assert (engine.tried, engine.live) == (["v1", "v2", "v1"], "v1")


@pytest.mark.asyncio
async def test_an_endless_row_of_records_is_not_kept() -> None:
    engine = Engine()
    names = [f"v{number}" for number in range(swaps.CANDIDATES_MAX + 5)]
    engine.offer(*names)
    assert list(engine.settled) == names[:5]
    async with engine.running():
        await engine.lane.idle.wait()
    assert engine.settled.keys() == set(names)
