"""The same questions by HTTP and by the SDK, many at once, in turns on one river.

Both sides run on the machine that computes the answers, so only their difference says something;
the CPU is the gateway process's own, and this process's own for the SDK.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import aiohttp
import psutil

from infra.commands.shell import err
from infra.measure import percentiles
from schemas.events import Retrieval, Sampling
from streams.client import Client
from streams.settings import KafkaSettings

# How many streams at once, and how often.
ROUNDS: Final = {1: 8, 10: 6, 100: 1, 200: 1}
_TOKENS: Final = 16
_WARM_UP: Final = 3
_TIMEOUT: Final = aiohttp.ClientTimeout(total=600)


@dataclass(slots=True)
class Read:
    """One answer: time to its first text, and its tokens."""

    first_ms: float
    tokens: int


@dataclass(slots=True)
class Side:
    """What one way of asking came to, over all rounds of one number of streams."""

    reads: list[Read]
    duration_s: float = 0.0
    cpu_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Milliseconds, rates, and the CPU that 1,000 tokens took."""
        tokens = sum(read.tokens for read in self.reads)
        return {
            "first_token_ms": percentiles(read.first_ms for read in self.reads),
            "tokens_per_s": round(tokens / self.duration_s, 1),
            "cpu_s_per_1000_tokens": round(1000 * self.cpu_s / tokens, 3),
        }


async def bench_gateway(kafka: KafkaSettings, port: int) -> dict[str, Any]:
    """Figures by the number of streams; a gateway of this river listens at `port`."""
    numbers = count()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        Client(kafka, source="/bench") as client,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as http,
    ):

        async def by_sdk() -> Read:
            return await _by_sdk(client, _question(next(numbers)))

        async def by_http() -> Read:
            return await _by_http(http, _question(next(numbers)))

        for _ in range(_WARM_UP):
            await by_sdk()
            await by_http()
        ways = [("sdk", by_sdk, psutil.Process()), ("http", by_http, _gateway_process())]
        told = {}
        for streams in ROUNDS:
            told[str(streams)] = await _compare(ways, streams)
            err.print(f"{streams} streams: {told[str(streams)]}", style="dim", markup=False)
        return told


async def _compare(
    ways: Sequence[tuple[str, Callable[[], Awaitable[Read]], psutil.Process]], streams: int
) -> dict[str, Any]:
    sides = {name: Side([]) for name, _, _ in ways}
    for number in range(ROUNDS[streams]):
        # Each goes first as often as the other.
        for name, ask, process in ways if number % 2 else ways[::-1]:
            side, began_s, cpu_s = sides[name], time.perf_counter(), _cpu_s(process)
            side.reads += await asyncio.gather(*(ask() for _ in range(streams)))
            side.duration_s += time.perf_counter() - began_s
            side.cpu_s += _cpu_s(process) - cpu_s
    told: dict[str, Any] = {name: side.figures() for name, side in sides.items()}
    first = {name: found["first_token_ms"]["p50"] for name, found in told.items()}
    told["overhead_p50_ms"] = round(first["http"] - first["sdk"], 2)
    return told


async def _by_sdk(client: Client, question: str) -> Read:
    began_s, first_ms = time.perf_counter(), 0.0
    sampling, retrieval = Sampling(max_tokens=_TOKENS), Retrieval(top_k=1)
    answer = await client.ask(question, sampling=sampling, retrieval=retrieval)
    async for _ in answer:
        first_ms = first_ms or 1000 * (time.perf_counter() - began_s)
    generation = await answer.finished()
    return Read(first_ms, generation.usage.completion_tokens)


async def _by_http(http: aiohttp.ClientSession, question: str) -> Read:
    began_s, first_ms, tokens = time.perf_counter(), 0.0, 0
    asked = {
        "model": "headwater",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": _TOKENS,
        "retrieval": {"top_k": 1},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with http.post("/v1/chat/completions", json=asked, timeout=_TIMEOUT) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if any(choice["delta"].get("content") for choice in chunk["choices"]):
                first_ms = first_ms or 1000 * (time.perf_counter() - began_s)
            elif "usage" in chunk:
                tokens = chunk["usage"]["completion_tokens"]
    return Read(first_ms, tokens)


def _question(number: int) -> str:
    return f"What is the river number {number} called, and how long is it?"


def _gateway_process() -> psutil.Process:
    children = psutil.Process().children(recursive=True)
    return next(p for p in children if p.cmdline()[-2:] == ["agent", "gateway"])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
