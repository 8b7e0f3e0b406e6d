"""Sending one prompt's chunks: at once when quiet, coalesced when tokens come fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from schemas.events import TokenLogprob


@dataclass(frozen=True, slots=True)
class Part:
    """New text of one of a prompt's answers."""

    text: str = ""
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


Send = Callable[[int, Part], Awaitable[None]]


class ChunkSender:
    """Numbers the parts of a prompt's answers and sends at most one chunk of each per interval.

    `send(index, part)` is awaited, so that a slow broker makes chunks larger, not a queue longer.
    """

    def __init__(self, send: Send, interval_ms: float) -> None:
        self._send = send
        self._interval_s = interval_ms / 1000
        self._pending: list[Part] = []
        self._arrived = asyncio.Event()
        self._finishing = asyncio.Event()
        self._next_s = 0.0
        self.sent = 0
        self._task = asyncio.create_task(self._run(), name="headwater-chunks")

    def add(self, part: Part) -> None:
        """Text to be sent soon."""
        self._pending.append(part)
        self._arrived.set()

    async def finish(self) -> Part:
        """End sending; returns the part that was not sent, for the last chunk to carry."""
        self._finishing.set()
        self._arrived.set()
        await self._task
        *others, last = joined(self._pending) or [Part()]
        for part in others:
            await self._send_part(part)
        return last

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            # Not after sending: text that comes later than an interval needs no timer.
            await self._pause()
            self._arrived.clear()
            if self._finishing.is_set():
                return
            parts = joined(self._pending)
            self._pending.clear()
            if parts:
                self._next_s = time.monotonic() + self._interval_s
                for part in parts:
                    await self._send_part(part)

    async def _send_part(self, part: Part) -> None:
        await self._send(self.sent, part)
        self.sent += 1

    async def _pause(self) -> None:
        # Ends early only for the end of the answer; more text meanwhile just piles up.
        remaining_s = self._next_s - time.monotonic()
        if remaining_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._finishing.wait()


def joined(parts: Iterable[Part]) -> list[Part]:
    """One part for each choice that has something, in the order of choices."""
    found: dict[int, list[Part]] = {}
    for part in parts:
        found.setdefault(part.choice, []).append(part)
    whole = [
        Part(
            "".join(part.text for part in of_choice),
            choice,
            tuple(logprob for part in of_choice for logprob in part.logprobs),
        )
        for choice, of_choice in sorted(found.items())
    ]
    return [part for part in whole if part.text or part.logprobs]
