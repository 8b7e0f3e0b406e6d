"""The finished records of one partition: each prompt gets one, whatever is killed (law 1).

Two guards together: a fenced writer, so that only the partition's newest owner can publish, and the
`generations` topic itself, read back from the time of the prompt on, so that the newest owner knows
what its predecessors finished. A generation is always younger than its prompt, so what lies before
the oldest prompt asked about need not be read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from schemas import codec
from schemas.events import Generation
from schemas.topics import GENERATIONS
from streams.fenced_writer import FencedWriter
from streams.follower import Follower
from streams.lookup import offset_at, read_at
from streams.producer import Outgoing
from streams.settings import KafkaSettings

# Brokers' clocks may differ a little.
_CLOCK_SKEW_MS_MAX: Final = 60_000
_REMEMBERED_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    timestamp_ms: int


class Finals:
    """Knows and writes the finished records of one partition."""

    def __init__(self, kafka: KafkaSettings, partition: int) -> None:
        self._kafka = kafka
        self._partition = partition
        self._writer = FencedWriter(kafka, f"generate.{partition}")
        self._finished: dict[str, _Place] = {}
        self._known_since_ms: int | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Take the partition over from whoever wrote it before."""
        await self._writer.open()
        self._known_since_ms = None

    async def find(self, prompt_id: str, prompted_ms: int) -> Generation | None:
        """The finished record of a prompt that was published at `prompted_ms`, if there is one."""
        async with self._lock:
            since_ms = prompted_ms - _CLOCK_SKEW_MS_MAX
            if self._known_since_ms is None or since_ms < self._known_since_ms:
                await self._read_back(since_ms)
        place = self._finished.get(prompt_id)
        if place is None:
            return None
        record = await asyncio.to_thread(
            read_at, self._kafka, GENERATIONS, self._partition, place.offset
        )
        generation: Generation = codec.decode(GENERATIONS, record.value or b"")
        # Where retention has removed the record, the next one kept is somebody else's answer.
        return generation if generation.prompt_id == prompt_id else None

    async def publish(self, generation: Generation, made_headers: list[tuple[str, bytes]]) -> None:
        """Write a finished record durably.

        Raises Fenced when another worker owns the partition, and RecordTooLarge.
        """
        record = Outgoing(
            GENERATIONS,
            generation.prompt_id,
            codec.checked(GENERATIONS, generation),
            made_headers,
            self._partition,
        )
        (delivered,) = await self._writer.write([record])
        place = _Place(delivered.offset, generation.timings.finished_ms)
        self._finished[generation.prompt_id] = place
        self._forget_oldest()

    async def _read_back(self, since_ms: int) -> None:
        start = await asyncio.to_thread(
            offset_at, self._kafka, GENERATIONS, self._partition, since_ms
        )
        follower = Follower(self._kafka, GENERATIONS, {self._partition: start}, [self._partition])
        await follower.open()
        found: dict[str, _Place] = {}
        try:
            async for record in follower.until_caught_up():
                found[record.key_text or ""] = _Place(record.offset, record.timestamp_ms)
        finally:
            await follower.close()
        # Oldest first; what was published meanwhile comes last.
        self._finished = found | self._finished
        self._known_since_ms = since_ms

    def _forget_oldest(self) -> None:
        while len(self._finished) > _REMEMBERED_MAX:
            oldest = next(iter(self._finished))
            # What is forgotten here is read back if ever a prompt of that age comes again.
            self._known_since_ms = self._finished.pop(oldest).timestamp_ms + 1
