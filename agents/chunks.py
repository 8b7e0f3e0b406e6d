"""Sending one answer's chunks: at once when quiet, coalesced when tokens come fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

Send = Callable[[int, str], Awaitable[None]]


class ChunkSender:
    """Numbers the pieces of one answer and sends at most one chunk per interval.

    `send(index, text)` is awaited, so that a slow broker makes chunks larger, not a queue longer.
    """

    def __init__(self, send: Send, interval_ms: float) -> None:
        self._send = send
        self._interval_s = interval_ms / 1000
        self._pending: list[str] = []
        self._arrived = asyncio.Event()
        self._finishing = asyncio.Event()
        self.sent = 0
        self._task = asyncio.create_task(self._run(), name="headwater-chunks")

    def add(self, text: str) -> None:
        """Text to be sent soon."""
        self._pending.append(text)
        self._arrived.set()

    async def finish(self) -> int:
        """Send what is left without waiting for the interval; returns the number of chunks."""
        self._finishing.set()
        self._arrived.set()
        await self._task
        return self.sent

    async def _run(self) -> None:
        while not self._finishing.is_set() or self._pending:
            await self._arrived.wait()
            self._arrived.clear()
            text = "".join(self._pending)
            self._pending.clear()
            if not text:
                continue
            started = time.monotonic()
            await self._send(self.sent, text)
            self.sent += 1
            await self._pause(self._interval_s - (time.monotonic() - started))

    async def _pause(self, remaining_s: float) -> None:
        # Ends early only for the end of the answer; more text meanwhile just piles up.
        if remaining_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), remaining_s)
