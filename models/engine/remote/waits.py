"""Waiting that a deadline or the engine's end cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.errors import GenerationFailed


class Waits:
    """Everything that somebody waits for at this moment. Closed until opened."""

    def __init__(self) -> None:
        self._timeouts: set[asyncio.Timeout] = set()
        self.closed = True

    @asynccontextmanager
    async def until(self, deadline_s: float | None) -> AsyncIterator[None]:
        """Bounds what is awaited inside; the deadline is in the loop's time.

        Raises TimeoutError at the deadline and GenerationFailed when closed.
        """
        self.require_open()
        try:
            async with asyncio.timeout_at(deadline_s) as timeout:
                self._timeouts.add(timeout)
                try:
                    yield
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError:
            self.require_open()
            raise

    def require_open(self) -> None:
        """Raises GenerationFailed when closed."""
        if self.closed:
            raise GenerationFailed(
                "The engine is not running.", "Start it, or ask a replica that runs."
            )

    def close(self) -> None:
        """Ends what is awaited now and what will be."""
        self.closed = True
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
