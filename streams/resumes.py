"""Reading answers again that somebody began to read: one reader for all that a client resumes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from schemas import codec
from schemas.errors import EventInvalid, HeadwaterError
from schemas.topics import TOKENS
from streams.follower import Follower
from streams.racing import unless_set
from streams.records import Record
from streams.replies import Chunks, OnResumed
from streams.settings import KafkaSettings

# Clients of a process that died come back together: their places are read in one go.
_TOGETHER_S: Final = 0.05


class Resumes:
    """Follows partitions of `tokens` from the earliest place that is wanted, while any is.

    A later wish for an earlier place reads the partition again from there. Answers that were
    further on then see chunks twice, which `Assembly` ignores.
    """

    def __init__(self, settings: KafkaSettings, on_resumed: OnResumed | None = None) -> None:
        self.settings = settings
        self._on_resumed = on_resumed
        # By partition and key.
        self._waiting: dict[int, dict[bytes, list[Chunks]]] = {}
        self._positions: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def expect(self, partition: int, offset: int, key: bytes) -> Chunks:
        """A queue that will hold the chunks of one prompt, from this place on."""
        chunks: Chunks = asyncio.Queue()
        self._waiting.setdefault(partition, {}).setdefault(key, []).append(chunks)
        if offset < self._positions.get(partition, offset + 1):
            self._positions[partition] = offset
            self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="headwater-resumes")
        return chunks

    def forget(self, partition: int, key: bytes, chunks: Chunks) -> None:
        """Nobody reads this queue any more; without any the partition is let go."""
        of_partition = self._waiting.get(partition, {})
        queues = of_partition.get(key, [])
        if chunks in queues:
            queues.remove(chunks)
        if not queues:
            of_partition.pop(key, None)
        if not of_partition and self._waiting.pop(partition, None) is not None:
            del self._positions[partition]
            self._changed.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_TOGETHER_S)
                self._changed.clear()
                if self._positions:
                    await self._read(dict(self._positions))
        except HeadwaterError as error:
            for chunks in self._all():
                chunks.put_nowait(error)
            self._waiting, self._positions = {}, {}

    async def _read(self, start: dict[int, int]) -> None:
        """Until other places are wanted."""
        follower = Follower(self.settings, TOKENS, start, sorted(start))
        await follower.open()
        try:
            await unless_set(self._changed, self._hand_over(follower))
        finally:
            await follower.close()

    async def _hand_over(self, follower: Follower) -> None:
        while True:
            batch = await follower.batch()
            if self._changed.is_set():
                # These are read again: positions may already be those of the next reader.
                return
            for record in batch:
                self._deliver(record)

    def _deliver(self, record: Record) -> None:
        self._positions[record.partition] = record.offset + 1
        queues = self._waiting.get(record.partition, {}).get(record.key or b"")
        if record.value is None and self._on_resumed is not None:
            self._on_resumed(record.key_text or "", record.offset)
        if not queues or record.value is None:
            return
        try:
            chunk = codec.decode(TOKENS, record.value)
        except EventInvalid:
            return  # Not ours: agents only write valid chunks.
        for chunks in queues:
            chunks.put_nowait(chunk)

    def _all(self) -> list[Chunks]:
        return [
            chunks
            for keys in self._waiting.values()
            for queues in keys.values()
            for chunks in queues
        ]


@dataclass(slots=True)
class ResumedReplies:
    """One answer's share of `Resumes`, as an `Answer` wants it."""

    resumes: Resumes
    prompt_id: str
    partition: int
    offset: int
    chunks: Chunks | None = None

    @property
    def settings(self) -> KafkaSettings:
        return self.resumes.settings

    def expect(self, generation_id: str) -> Chunks:
        self.chunks = self.resumes.expect(self.partition, self.offset, self.prompt_id.encode())
        return self.chunks

    def forget(self, generation_id: str) -> None:
        if self.chunks is not None:
            self.resumes.forget(self.partition, self.prompt_id.encode(), self.chunks)
            self.chunks = None
