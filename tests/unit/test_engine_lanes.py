"""Batches beside each other: what is shared, where a request goes, and how they end together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import torch
from tiny_model import build_tiny_model

from models.engine import linears
from models.engine.assemble import lanes_favoured
from models.engine.lanes import Lane
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas.errors import GenerationFailed, SettingsInvalid

CONTEXT_TOKENS = 512
TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@asynccontextmanager
async def running(
    folder: Path, slots: int = 4, kv_tokens: int | None = None, lanes: int = 2, threads: int = 2
) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(
        TorchEngineOptions(
            folder.parent,
            str(folder),
            slots=slots,
            context_tokens_max=CONTEXT_TOKENS,
            kv_bytes_max=None if kv_tokens is None else kv_tokens * TOKEN_BYTES,
            device="cpu",
            dtype="float32",
            threads=threads,
            lanes=lanes,
        )
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def lanes_of(engine: TorchEngine) -> list[Lane]:
    assert engine._lanes is not None
    return engine._lanes._lanes


async def answer(engine: TorchEngine, max_tokens: int = 400) -> str:
    # A schema keeps the tiny model from ending early.
    params = SamplingParams(
        max_tokens=max_tokens,
        json_schema='{"type": "array", "items": {"type": "integer"}, "minItems": 400}',
    )
    asked = GenerationRequest("r", ({"role": "user", "content": "the river"},), params)
    async with aclosing(engine.stream(asked)) as pieces:
        return "".join([piece.text async for piece in pieces])


async def until_running(engine: TorchEngine, *counts: int) -> None:
    async with asyncio.timeout(20):
        while tuple(lane.running for lane in lanes_of(engine)) != counts:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_requests_go_to_the_lane_with_the_fewest(folder: Path) -> None:
    async with running(folder, slots=5) as engine:
        asking = [asyncio.create_task(answer(engine)) for _ in range(5)]
        await until_running(engine, 3, 2)
        assert engine.running == 5
        for task in asking:
            task.cancel()
        await until_running(engine, 0, 0)
        assert engine.metrics.get_sample_value("headwater:kv_cache_usage_perc") == 0


@pytest.mark.asyncio
async def test_the_first_lane_computes_with_all_threads_while_it_is_alone(folder: Path) -> None:
    seen: list[set[int]] = [set(), set()]
    async with running(folder) as engine:
        for lane, threads in zip(lanes_of(engine), seen, strict=True):
            watch(lane, threads)
        await answer(engine, max_tokens=20)
        assert seen == [{2}, set()]
        await asyncio.gather(answer(engine), answer(engine, max_tokens=20))
        # Alone before the other begins and after it has ended.
        assert seen == [{1, 2}, {1}]


def watch(lane: Lane, threads: set[int]) -> None:
    step = lane.scheduler.step

    def step_and_look() -> None:
        threads.add(torch.get_num_threads())
        step()

    lane.scheduler.step = step_and_look  # type: ignore[method-assign]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("slots", "kv_tokens", "lanes"),
    [(4, None, 2), (1, None, 1), (4, 4 * CONTEXT_TOKENS, 2), (4, 4 * CONTEXT_TOKENS - 1, 1)],
)
async def test_there_are_no_more_lanes_than_slots_and_memory_allow(
    folder: Path, slots: int, kv_tokens: int | None, lanes: int
) -> None:
    async with running(folder, slots, kv_tokens) as engine:
        found = lanes_of(engine)
        assert len(found) == lanes
        assert sum(lane.scheduler.slots for lane in found) == slots
        positions = sum(lane.scheduler.model.kv.tokens_max for lane in found)
        assert positions <= (kv_tokens or max(slots, 2 * lanes) * CONTEXT_TOKENS)


@pytest.mark.asyncio
async def test_a_lane_that_fails_ends_all_and_nobody_is_left_waiting(folder: Path) -> None:
    async with running(folder) as engine:
        asking = [asyncio.create_task(answer(engine)) for _ in range(2)]
        await until_running(engine, 1, 1)
        lanes_of(engine)[1].scheduler.step = None  # type: ignore[assignment, method-assign]
        async with asyncio.timeout(20):
            ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ends] == [GenerationFailed] * 2
    # The loop's own are of no interest.
    assert not [t for t in threading.enumerate() if t.name.startswith("headwater")]


@pytest.mark.parametrize(
    ("instructions", "intel", "dtype", "threads", "lanes"),
    [
        (("avx2",), False, torch.float32, 2, 2),
        (("avx2",), False, torch.float32, 1, 1),
        (("avx2",), False, torch.float32, 8, 1),
        (("avx2",), False, torch.bfloat16, 2, 1),
        (("avx2",), True, torch.float32, 2, 1),
        (("avx2", "avx512_f"), False, torch.float32, 2, 1),
    ],
)
def test_there_are_two_lanes_where_they_were_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch,
    instructions: tuple[str, ...],
    intel: bool,
    dtype: torch.dtype,
    threads: int,
    lanes: int,
) -> None:
    monkeypatch.setattr(linears, "_has", lambda name: name in instructions)
    monkeypatch.setattr(linears, "_is_intel", lambda: intel)
    assert lanes_favoured(torch.zeros(1, 1, dtype=dtype), threads) == lanes


def test_no_lane_at_all_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="lanes"):
        TorchEngineOptions(Path(), lanes=0)
