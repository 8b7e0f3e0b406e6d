"""Cancels overtake: tombstones of `contexts` are read ahead of the prompts that wait before them.

A worker that is full stops reading, and a cancel would wait in Kafka behind all the prompts there.
So a second reader looks at the same partitions, and keeps nothing but tombstones. It starts where
the group goes on: what was cancelled while no worker ran is known before it is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from schemas.topics import CONTEXTS
from streams.follower import Follower
from streams.lookup import committed_offsets
from streams.racing import unless_set
from streams.records import Record
from streams.settings import KafkaSettings

# Tombstones known in advance; more are found in their turn (law 8).
_REMEMBERED_MAX: Final = 100_000


class Cancels:
    """Calls `on_cancel` with each tombstone in a worker's partitions, long before its turn comes.

    What was begun before the tombstone was read is for `on_cancel`; for the rest there is `cover`.
    """

    def __init__(
        self, kafka: KafkaSettings, group: str, on_cancel: Callable[[Record], None]
    ) -> None:
        self._kafka = kafka
        self._group = group
        self._on_cancel = on_cancel
        self._owned: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._positions: dict[int, int] = {}
        # (partition, prompt_id) to the offset of the tombstone.
        self._ahead: dict[tuple[int, str], int] = {}
        self._reached: dict[int, int] = {}

    def owns(self, partitions: set[int]) -> None:
        """The partitions of `contexts` that this worker has from now on."""
        self._owned = frozenset(partitions)
        self._positions = {p: at for p, at in self._positions.items() if p in partitions}
        self._reached = {p: at for p, at in self._reached.items() if p in partitions}
        self._ahead = {key: at for key, at in self._ahead.items() if key[0] in partitions}
        self._changed.set()

    def cover(self, record: Record, prompt_id: str) -> bool:
        """Whether a later tombstone cancels the prompt in this record."""
        return self._ahead.get((record.partition, prompt_id), -1) > record.offset

    def reached(self, tombstone: Record) -> None:
        """A tombstone's turn has come: every prompt before it was taken on."""
        self._reached[tombstone.partition] = tombstone.offset
        key = (tombstone.partition, tombstone.key_text or "")
        if self._ahead.get(key, -1) <= tombstone.offset:
            self._ahead.pop(key, None)

    async def follow(self) -> None:
        """Read ahead for ever, in whichever partitions this worker has."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._owned:
                await self._follow(self._owned)

    async def _follow(self, partitions: frozenset[int]) -> None:
        """Until the partitions change."""
        committed = await asyncio.to_thread(
            committed_offsets, self._kafka, CONTEXTS, self._group, partitions
        )
        start = committed | self._positions
        follower = Follower(self._kafka, CONTEXTS, start, sorted(partitions))
        await follower.open()
        try:
            await unless_set(self._changed, self._note_all(follower))
        finally:
            await follower.close()

    async def _note_all(self, follower: Follower) -> None:
        while True:
            self._note(await follower.batch())

    def _note(self, records: list[Record]) -> None:
        for record in records:
            partition, offset = record.partition, record.offset
            self._positions[partition] = offset + 1
            if record.value is None and offset > self._reached.get(partition, -1):
                if len(self._ahead) < _REMEMBERED_MAX:
                    self._ahead[partition, record.key_text or ""] = offset
                self._on_cancel(record)
