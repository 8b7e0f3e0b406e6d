"""What running streams feel of a swap: their gaps between tokens with and without one, in turn."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from infra.bench.random_adapters import RandomAdapter, random_adapters
from infra.measure import percentiles
from models.artifacts import fetch
from models.background import yield_to_others
from models.engine.load import load as load_model
from models.engine.options import TorchEngineOptions
from models.engine.protocol import DEFAULT_ADAPTER, GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine

SWAPS: Final = 200
STREAMS: Final = 8
_ANSWER_TOKENS: Final = 200
_ADAPTERS: Final = 8
# Tokens of one stream between a swap and the quiet window that it is compared with.
_BETWEEN_TOKENS: Final = 3
_WARM_UP_S: Final = 2.0


@dataclass(slots=True)
class Gaps:
    """When a token of a stream came, and how long after the one before it, in seconds."""

    ends_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    # From asking to the first token, of each answer.
    prompts_s: list[tuple[float, float]] = field(default_factory=list)

    def longest_ms(self, since_s: float, until_s: float) -> float:
        """The longest of those that lie in a window in part at least.

        Those in which a prompt was read are left out: that takes longer than a swap, and comes
        with or without one.
        """
        inside = [
            gap_s
            for end_s, gap_s in zip(self.ends_s, self.gaps_s, strict=True)
            if end_s > since_s and end_s - gap_s < until_s
            if not self._has_prompt(end_s - gap_s, end_s)
        ]
        return 1000 * max(inside, default=0.0)

    def _has_prompt(self, since_s: float, until_s: float) -> bool:
        return any(begun < until_s and end > since_s for begun, end in self.prompts_s)


async def bench_swap_stalls(cache_dir: Path, model: str = "smollm2") -> dict[str, Any]:
    """Milliseconds: gaps and stalls in windows with a swap, and in as long ones without.

    A swap is all that a worker does: fetch, verify, load, go live. A stall is what the longest gap
    of any stream in a window has over the median gap.
    """
    # Only the engine's thread may have a pool of OpenMP threads.
    torch.set_num_threads(1)
    loaded = load_model(model, cache_dir, "auto", "auto")
    with tempfile.TemporaryDirectory(prefix="headwater-") as name:
        folder = Path(name)
        adapters = random_adapters(loaded.model, folder, _ADAPTERS)
        del loaded
        engine = TorchEngine(TorchEngineOptions(cache_dir, model))
        await engine.start()
        # As a worker does: no collection looks through what libraries hold.
        gc.collect()
        gc.freeze()
        try:
            return await _measure(engine, adapters, folder / "cache")
        finally:
            await engine.close()


async def _measure(
    engine: TorchEngine, adapters: Sequence[RandomAdapter], cache: Path
) -> dict[str, Any]:
    gaps = Gaps()
    streams = [asyncio.create_task(_stream_on(engine, gaps, n)) for n in range(STREAMS)]
    try:
        await asyncio.sleep(_WARM_UP_S)
        with ThreadPoolExecutor(1, "headwater-artifacts", yield_to_others) as fetcher:
            swaps = [(adapters[n % len(adapters)], n) for n in range(SWAPS)]
            windows = [await _pair(engine, gaps, swap, cache, fetcher) for swap in swaps]
    finally:
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return _figures(gaps, windows)


Window = tuple[float, float]


async def _pair(
    engine: TorchEngine,
    gaps: Gaps,
    swap: tuple[RandomAdapter, int],
    cache: Path,
    fetcher: ThreadPoolExecutor,
) -> tuple[Window, Window]:
    """A window with a swap, then one as long without, both to the next token of each stream."""
    adapter, number = swap
    begun_s = time.perf_counter()
    # An address of its own: nothing is found in the cache.
    fetching = partial(fetch, str(adapter.folder), adapter.sha256, cache / f"{number}")
    copy = await asyncio.get_running_loop().run_in_executor(fetcher, fetching)
    await engine.load_adapter(DEFAULT_ADAPTER, f"v{number}", copy)
    swapped = begun_s, time.perf_counter()
    await _tokens(gaps, STREAMS * _BETWEEN_TOKENS)
    quiet_s = time.perf_counter()
    await asyncio.sleep(swapped[1] - swapped[0])
    quiet = quiet_s, time.perf_counter()
    await _tokens(gaps, STREAMS * _BETWEEN_TOKENS)
    return swapped, quiet


async def _tokens(gaps: Gaps, count: int) -> None:
    """Until so many more have come."""
    wanted = len(gaps.gaps_s) + count
    while len(gaps.gaps_s) < wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def _stream_on(engine: TorchEngine, gaps: Gaps, number: int) -> None:
    """Answers one after the other, for ever."""
    messages = ({"role": "user", "content": f"Tell a long story about river number {number}."},)
    request = GenerationRequest(f"{number}", messages, SamplingParams(max_tokens=_ANSWER_TOKENS))
    with suppress(asyncio.CancelledError):
        while True:
            last_s, asked_s = None, time.perf_counter()
            async with aclosing(engine.stream(request)) as pieces:
                async for _ in pieces:
                    now_s = time.perf_counter()
                    if last_s is None:
                        gaps.prompts_s.append((asked_s, now_s))
                    else:
                        gaps.ends_s.append(now_s)
                        gaps.gaps_s.append(now_s - last_s)
                    last_s = now_s


def _figures(gaps: Gaps, windows: Sequence[tuple[Window, Window]]) -> dict[str, Any]:
    quiet = [gaps.longest_ms(*window) for _, window in windows]
    swapped = [gaps.longest_ms(*window) for window, _ in windows]
    step_ms = percentiles(1000 * gap_s for gap_s in gaps.gaps_s)
    middle_ms = step_ms["p50"] or 0.0
    stalls = percentiles(max(0.0, gap_ms - middle_ms) for gap_ms in swapped)
    return {
        "streams": STREAMS,
        "gap_ms": step_ms,
        "swap_ms": percentiles(1000 * (end_s - begun_s) for (begun_s, end_s), _ in windows),
        "stall_at_a_swap_ms": stalls,
        "stall_without_ms": percentiles(max(0.0, gap_ms - middle_ms) for gap_ms in quiet),
        "stall_p99_in_steps": round((stalls["p99"] or 0.0) / middle_ms, 2),
        "goal": "stall p99 <= 1 step",
    }
