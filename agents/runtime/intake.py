"""From a Faust stream to small batches: what has arrived meanwhile is processed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

import faust

from agents.runtime.worker import as_record
from streams.records import Record

# Records read ahead of the one being processed; more wait in Kafka (law 8).
_READ_AHEAD_MAX: Final = 256


@dataclass(slots=True, eq=False)
class Taken:
    """A record with its acknowledgement: `done` lets its offset be committed."""

    record: Record
    event: faust.EventT
    intake: Intake
    finished: bool = False

    async def done(self) -> None:
        self.finished = True
        await self.intake.acknowledge(self.record)


class Intake:
    """A bounded queue between the stream that reads and the task that works.

    Faust is told of finished records in the order of their offsets only: told of a later one first,
    it commits past an earlier one that is still being worked on, which a crash would then lose.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Taken] = asyncio.Queue(_READ_AHEAD_MAX)
        self._owned: set[int] = set()
        # Not acknowledged yet, by topic and partition, oldest first.
        self._open: dict[tuple[str, int], deque[Taken]] = {}

    def owns(self, partitions: set[int]) -> None:
        """The partitions that this worker has from now on; what it took from others is void."""
        kept = self._owned & partitions
        self._open = {at: waiting for at, waiting in self._open.items() if at[1] in kept}
        self._owned = set(partitions)

    def reads(self, partition: int) -> bool:
        """Whether this worker has a partition."""
        return partition in self._owned

    async def fill(self, stream: faust.StreamT) -> None:
        """Read the stream for as long as it lives; the agent's whole body."""
        self._stream = cast(faust.Stream, stream).noack()
        async for event in self._stream.events():
            taken = Taken(as_record(event), event, self)
            self._remember(taken)
            await self._queue.put(taken)

    async def batches(self, records_max: int) -> AsyncIterator[list[Taken]]:
        """At least one record, and as many more as are waiting already, up to a bound."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < records_max and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            # What was read of a partition that went to another worker since is that one's work.
            if mine := [taken for taken in batch if taken.record.partition in self._owned]:
                yield mine

    async def acknowledge(self, record: Record) -> None:
        """Acknowledge the oldest of a record's partition, up to the first that is not finished."""
        waiting = self._open.get((record.topic, record.partition))
        while waiting and waiting[0].finished:
            await self._stream.ack(waiting.popleft().event)

    def _remember(self, taken: Taken) -> None:
        place = taken.record.topic, taken.record.partition
        waiting = self._open.setdefault(place, deque())
        if waiting and waiting[-1].record.offset >= taken.record.offset:
            # After a rebalance all is read again from the committed offset on.
            waiting.clear()
        waiting.append(taken)
