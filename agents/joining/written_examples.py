"""Which examples exist already: each piece of feedback becomes one, whatever is killed.

As with finished records (`finals`): an example is younger than the feedback that it comes from, so
reading `examples` back from the time of the feedback on tells whether a predecessor wrote it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from schemas.headers import header
from schemas.topics import EXAMPLES
from streams.admin import partition_count
from streams.follower import Follower
from streams.lookup import offset_at
from streams.settings import KafkaSettings

# Brokers' clocks may differ a little.
_CLOCK_SKEW_MS_MAX: Final = 60_000
_REMEMBERED_MAX: Final = 200_000


class WrittenExamples:
    """The ids of examples since some time, for one partition of `feedback`."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        # The id of each, and the time of the feedback or of the example itself, in order.
        self._times_ms: dict[str, int] = {}
        self._known_since_ms: int | None = None

    async def holds(self, example_id: str, feedback_ms: int) -> bool:
        """Whether the example of feedback that the broker took at `feedback_ms` was written."""
        since_ms = feedback_ms - _CLOCK_SKEW_MS_MAX
        if self._known_since_ms is None or since_ms < self._known_since_ms:
            self._times_ms = await self._read_back(since_ms) | self._times_ms
            self._known_since_ms = since_ms
        return example_id in self._times_ms

    def note(self, example_id: str, feedback_ms: int) -> None:
        """An example is in the topic now."""
        self._times_ms[example_id] = feedback_ms
        while len(self._times_ms) > _REMEMBERED_MAX:
            oldest = next(iter(self._times_ms))
            forgotten_ms = self._times_ms.pop(oldest)
            self._known_since_ms = max(self._known_since_ms or 0, forgotten_ms + 1)

    async def _read_back(self, since_ms: int) -> dict[str, int]:
        partitions = range(await asyncio.to_thread(partition_count, self._kafka, EXAMPLES))
        start = {
            partition: await asyncio.to_thread(
                offset_at, self._kafka, EXAMPLES, partition, since_ms
            )
            for partition in partitions
        }
        follower = Follower(self._kafka, EXAMPLES, start, partitions)
        await follower.open()
        found: dict[str, int] = {}
        try:
            async for record in follower.until_caught_up():
                # Headers are enough: what came from elsewhere is no example of ours.
                if (event_id := header(record.headers, "ce_id")) is not None:
                    found[event_id] = record.timestamp_ms
        finally:
            await follower.close()
        return found
