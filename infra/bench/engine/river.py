"""The same requests through the topics: what is left of the engine's own speed."""

from __future__ import annotations

import asyncio
import random
import time

from infra.bench.engine.requests import PAUSE_S, Asked, Measured, Task
from schemas.events import Retrieval, Sampling
from streams.client import Client
from streams.settings import KafkaSettings

_WARM_UP_TOKENS = 8


async def measure_river(kafka: KafkaSettings, task: Task) -> Measured:
    """Tokens a second that a client sees. The prompts hold their passage, so none is looked up."""
    async with Client(kafka, source="/bench") as client:
        warm = task.warm_up[: task.concurrency]
        await asyncio.gather(*(_ask(client, asked, _WARM_UP_TOKENS) for asked in warm))
        waiting = task.requests[::-1]
        rng = random.Random(task.concurrency)
        tokens: list[int] = []

        async def ask_on() -> None:
            while waiting:
                await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
                if waiting:
                    asked = waiting.pop()
                    tokens.append(await _ask(client, asked, asked.max_tokens))

        begun = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(task.concurrency)))
        seconds = time.perf_counter() - begun
    return Measured(task.contestant, task.concurrency, sum(tokens), seconds)


async def _ask(client: Client, asked: Asked, max_tokens: int) -> int:
    answer = await client.ask(
        asked.messages,
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0),
        retrieval=Retrieval(top_k=0),
    )
    finished = await answer.finished()
    return finished.usage.completion_tokens
