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
        self._next_s = 0.0
        self.sent = 0
        self._task = asyncio.create_task(self._run(), name="headwater-chunks")

    def add(self, text: str) -> None:
        """Text to be sent soon."""
        self._pending.append(text)
        self._arrived.set()

    async def finish(self) -> str:
        """End sending; returns the text that was not sent, for the last chunk to carry."""
        self._finishing.set()
        self._arrived.set()
        await self._task
        return "".join(self._pending)

    async def spaced(self) -> None:
        """Return once the next chunk may be sent."""
        await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._finishing.is_set():
                return
            text = "".join(self._pending)
            self._pending.clear()
            if text:
                self._next_s = time.monotonic() + self._interval_s
                await self._send(self.sent, text)
                self.sent += 1
                await self._pause()

    async def _pause(self) -> None:
        # Ends early only for the end of the answer; more text meanwhile just piles up.
        remaining_s = self._next_s - time.monotonic()
        if remaining_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), remaining_s)
