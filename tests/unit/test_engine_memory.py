"""Thousands of requests, prompts of all lengths, swaps between them: memory stays where it was."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_adapter import write_tiny_adapter
from tiny_model import build_tiny_model

from models.engine.kv_memory import KvMemory
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.scheduler import Scheduler
from models.engine.torch_engine import TorchEngine
from schemas.errors import ModelBusy

TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, key heads, head size, float32
KV_TOKENS = 4096
ASKING = 24
# What the interpreter and the allocator take now and then; a request has a kilobyte at the least.
GROWTH_BYTES_MAX = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    for seed in range(2):
        write_tiny_adapter(folder / f"adapter-{seed}", seed)
    return folder


@dataclass
class Peak:
    """The most positions that ever took memory, and that requests ever held."""

    allocated: int = 0
    held: int = 0


class Asking:
    """Counts requests down."""

    def __init__(self, engine: TorchEngine, count: int) -> None:
        self.engine = engine
        self.left = count
        self.reasons: set[str | None] = set()

    async def go_on(self) -> None:
        while self.left > 0:
            self.left -= 1
            # Beginnings that come again, and prompts of up to an eighth of all memory.
            content = "down to the sea " * (self.left % 13 * 6) + f"{self.left % 97}"
            asked = GenerationRequest(
                "r",
                ({"role": "user", "content": content},),
                SamplingParams(max_tokens=1 + self.left % 7),
            )
            async with aclosing(self.engine.stream(asked)) as stream:
                pieces = [piece async for piece in stream]
            self.reasons.add(pieces[-1].finish_reason)


async def keep_swapping(engine: TorchEngine, folder: Path) -> None:
    number = 0
    while True:
        number += 1
        # On a slow machine requests on eight older versions are still open: as a worker, try again.
        with suppress(ModelBusy):
            await engine.load_adapter("default", f"v{number}", folder / f"adapter-{number % 2}")
        await asyncio.sleep(0.5)


def watched(scheduler: Scheduler, together: list[KvMemory], peak: Peak) -> None:
    """Looks at the memory of keys and values after each step: at that of all lanes `together`."""
    step = scheduler.step

    def step_and_look() -> None:
        step()
        peak.allocated = max(peak.allocated, sum(kv.allocated_tokens for kv in together))
        peak.held = max(peak.held, sum(kv.held_tokens for kv in together))

    scheduler.step = step_and_look  # type: ignore[method-assign]


async def served(engine: TorchEngine, folder: Path, count: int) -> int:
    """Serves so many requests; returns the resident bytes after them."""
    asking = Asking(engine, count)
    swapping = asyncio.create_task(keep_swapping(engine, folder))
    await asyncio.gather(*(asking.go_on() for _ in range(ASKING)))
    # If it has failed, it says so here.
    swapping.cancel()
    with suppress(asyncio.CancelledError):
        await swapping
    assert asking.reasons <= {"stop", "length"}
    gc.collect()
    return int(psutil.Process().memory_info().rss)


async def grows(folder: Path, warm_up: int, count: int, lanes: int) -> int:
    """By how many bytes `count` requests make the process larger, after some others."""
    engine = TorchEngine(
        TorchEngineOptions(
            folder.parent,
            str(folder),
            context_tokens_max=1024,
            kv_bytes_max=KV_TOKENS * TOKEN_BYTES,
            adapters_max=8,
            dtype="float32",
            lanes=lanes,
        )
    )
    await engine.start()
    try:
        assert engine._lanes is not None
        schedulers, peak = [lane.scheduler for lane in engine._lanes._lanes], Peak()
        assert len(schedulers) == lanes
        for scheduler in schedulers:
            watched(scheduler, [each.model.kv for each in schedulers], peak)
        before = await served(engine, folder, warm_up)
        after = await served(engine, folder, count)
        assert engine.metrics.get_sample_value("headwater:kv_cache_usage_perc") == 0
        assert engine.metrics.get_sample_value("headwater:prefix_cache_hits_total") > 0
        # The limit was reached, and never passed.
        assert KV_TOKENS / 2 < peak.held <= KV_TOKENS
        assert KV_TOKENS / 2 < peak.allocated <= KV_TOKENS
        return after - before
    finally:
        await engine.close()


@pytest.mark.asyncio
async def test_memory_is_flat_and_the_limit_of_keys_and_values_holds(folder: Path) -> None:
    assert await grows(folder, 400, 600, lanes=1) < GROWTH_BYTES_MAX


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.asyncio
@pytest.mark.parametrize("lanes", [1, 2])
async def test_memory_is_flat_over_10_000_requests(folder: Path, lanes: int) -> None:
    assert await grows(folder, 1_000, 10_000, lanes) < GROWTH_BYTES_MAX
