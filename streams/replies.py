"""The one reply partition of a client: its answers' chunks, handed to whoever asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from schemas import codec
from schemas.errors import EventInvalid, HeadwaterError
from schemas.events import TokenChunk
from schemas.topics import TOKENS
from streams.admin import partition_count
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings

Chunks = asyncio.Queue[TokenChunk | HeadwaterError]
# Called with the prompt_id of an answer that somebody reads on, and the offset where they said so.
OnResumed = Callable[[str, int], None]


class Replies:
    """Follows one partition of `tokens`, so that many clients do not each read the whole topic."""

    def __init__(self, settings: KafkaSettings, on_resumed: OnResumed | None = None) -> None:
        self.settings = settings
        self._on_resumed = on_resumed
        self._waiting: dict[str, Chunks] = {}
        self._failed: HeadwaterError | None = None

    async def open(self) -> None:
        """Pick a partition and start reading at its end; raises as `explain`."""
        count = await asyncio.to_thread(partition_count, self.settings, TOKENS)
        self.partition = random.randrange(count)
        self._follower = Follower(self.settings, TOKENS, partitions=[self.partition])
        await self._follower.open()
        self._task = asyncio.create_task(self._dispatch(), name="headwater-replies")

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset: what is handed over from now on is there or later."""
        return self.partition, self._follower.positions[self.partition]

    @property
    def failed(self) -> HeadwaterError | None:
        """Why nothing comes any more."""
        return self._failed

    def expect(self, generation_id: str) -> Chunks:
        """A queue that will hold this generation's chunks, in the order they were published.

        Its length is bounded by the longest answer (`limits.MAX_TOKENS_MAX` chunks an attempt).
        """
        chunks = self._waiting.setdefault(generation_id, asyncio.Queue())
        if self._failed is not None:
            chunks.put_nowait(self._failed)
        return chunks

    def forget(self, generation_id: str) -> None:
        """Nobody waits for this generation any more."""
        self._waiting.pop(generation_id, None)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._follower.close()

    async def _dispatch(self) -> None:
        try:
            while True:
                for record in await self._follower.batch():
                    self._deliver(record)
        except HeadwaterError as error:
            self._failed = error
            for queue in self._waiting.values():
                queue.put_nowait(error)

    def _deliver(self, record: Record) -> None:
        if record.value is None:
            if self._on_resumed is not None:
                self._on_resumed(record.key_text or "", record.offset)
            return
        try:
            chunk: TokenChunk = codec.decode(TOKENS, record.value)
        except EventInvalid:
            return  # Not ours: agents only write valid chunks.
        queue = self._waiting.get(chunk.generation_id)
        if queue is not None:
            queue.put_nowait(chunk)
