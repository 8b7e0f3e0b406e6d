"""From a Faust stream to small batches: what has arrived meanwhile is processed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

import faust

from agents.worker import as_record
from streams.records import Record

# Records read ahead of the one being processed; more wait in Kafka (law 8).
_READ_AHEAD_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Taken:
    """A record with its acknowledgement: `done` lets its offset be committed."""

    record: Record
    event: faust.EventT
    stream: faust.StreamT

    async def done(self) -> None:
        await self.stream.ack(self.event)


class Intake:
    """A bounded queue between the stream that reads and the task that works."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Taken] = asyncio.Queue(_READ_AHEAD_MAX)

    async def fill(self, stream: faust.StreamT) -> None:
        """Read the stream for as long as it lives; the agent's whole body."""
        source = cast(faust.Stream, stream).noack()
        async for event in source.events():
            await self._queue.put(Taken(as_record(event), event, source))

    async def batches(self, records_max: int) -> AsyncIterator[list[Taken]]:
        """At least one record, and as many more as are waiting already, up to a bound."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < records_max and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            yield batch
