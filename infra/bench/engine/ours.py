"""The engine, asked by clients of which each has one request open."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch

from infra.bench.engine.requests import PAUSE_S, UNGUESSED, Asked, Measured, Task
from infra.bench.random_adapters import random_adapters
from models.cache import user_cache_dir
from models.engine.load import load
from models.engine.options import TorchEngineOptions
from models.engine.protocol import BASE_VERSION, GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from models.learning.lora import LoraShape

_SHAPE: Final = LoraShape(8, 16.0, ("q_proj", "k_proj", "v_proj", "o_proj"))
_WARM_UP_TOKENS: Final = 8


async def measure(task: Task) -> Measured:
    """Tokens a second, and what its clients wait."""
    # Only the engine's thread may have a pool of OpenMP threads.
    torch.set_num_threads(1)
    options = TorchEngineOptions(
        user_cache_dir(), slots=max(task.concurrency, 1), threads=task.threads
    )
    if task.contestant == UNGUESSED:
        options = replace(options, guesses_max=0)
    engine = TorchEngine(options)
    await engine.start()
    try:
        versions = await _load_adapters(engine, task.adapters)
        await asyncio.gather(
            *(
                _ask(engine, asked, _WARM_UP_TOKENS, versions[number % len(versions)])
                for number, asked in enumerate(task.warm_up)
            )
        )
        begun = time.perf_counter()
        times = await _all_clients(engine, task, versions)
        seconds = time.perf_counter() - begun
    finally:
        await engine.close()
    return Measured(
        task.contestant,
        task.concurrency,
        sum(count for count, _, _ in times),
        seconds,
        [first_ms for _, first_ms, _ in times],
        [gap for _, _, gaps in times for gap in gaps],
    )


async def _all_clients(
    engine: TorchEngine, task: Task, versions: Sequence[str]
) -> list[tuple[int, float, list[float]]]:
    waiting = list(enumerate(task.requests))[::-1]
    rng = random.Random(task.concurrency)
    times = []

    async def client() -> None:
        while waiting:
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S) if task.concurrency > 1 else 0)
            if not waiting:
                return
            number, asked = waiting.pop()
            version = versions[number % len(versions)]
            times.append(await _ask(engine, asked, asked.max_tokens, version))

    await asyncio.gather(*(client() for _ in range(task.concurrency)))
    return times


async def _ask(
    engine: TorchEngine, asked: Asked, max_tokens: int, version: str = BASE_VERSION
) -> tuple[int, float, list[float]]:
    """Tokens, milliseconds to the first piece, and between pieces."""
    request = GenerationRequest(
        request_id="bench",
        messages=tuple(asked.messages),
        sampling=SamplingParams(temperature=0.0, max_tokens=max_tokens),
        model_version=version,
    )
    begun = time.perf_counter()
    seen = []
    tokens = 0
    async with aclosing(engine.stream(request)) as pieces:
        async for piece in pieces:
            tokens = piece.completion_tokens
            seen.append(1000 * (time.perf_counter() - begun))
    return tokens, seen[0], [after - before for before, after in pairwise(seen)]


async def _load_adapters(engine: TorchEngine, count: int) -> list[str]:
    """Adapters of random weights; without any, the base model's version."""
    if not count:
        return [BASE_VERSION]
    model = load("smollm2", user_cache_dir(), "cpu", "float32").model
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        adapters = random_adapters(model, Path(folder), count, _SHAPE)
        for adapter in adapters:
            await engine.load_adapter(adapter.folder.name, adapter.folder.name, adapter.folder)
    return [adapter.folder.name for adapter in adapters]
