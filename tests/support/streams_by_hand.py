"""A stand-in for a Faust stream, so that an agent can run in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any


class HandStream:
    """As much of a Faust stream as an intake uses. Records go in by hand."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self.acknowledged: list[tuple[int, int]] = []

    def put(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        message = SimpleNamespace(
            topic=topic,
            partition=partition,
            offset=offset,
            key=None,
            value=value,
            headers=headers,
            timestamp=0.0,
        )
        self._events.put_nowait(SimpleNamespace(message=message))

    def noack(self) -> HandStream:
        return self

    async def events(self) -> AsyncIterator[Any]:
        while True:
            yield await self._events.get()

    async def ack(self, event: Any) -> None:
        self.acknowledged.append((event.message.partition, event.message.offset))
