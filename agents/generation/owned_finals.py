"""The finished records of the partitions that a worker has: one writer for each."""

from __future__ import annotations

import asyncio

from agents.generation.finals import Finals
from streams.settings import KafkaSettings


class OwnedFinals:
    """Opened once for each partition; whoever opens one fences all before it."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._opening: dict[int, asyncio.Task[Finals]] = {}

    def owns(self, partitions: set[int]) -> None:
        """Open those of these partitions, and forget all others."""
        for taken_on in partitions:
            # Opened before the first prompt comes, which would wait for it.
            self._open(taken_on)
        for lost in set(self._opening) - partitions:
            self._opening.pop(lost)

    async def of(self, partition: int) -> Finals:
        """Those of a partition. Raises as `Finals.open`."""
        return await asyncio.shield(self._open(partition))

    async def after(self, partition: int, fenced: Finals) -> Finals:
        """Those of a partition, once `fenced` cannot write any more."""
        # Only the first of the answers that were fenced opens anew: that fences all before it.
        opening = self._opening.get(partition)
        if opening is not None and await asyncio.shield(opening) is fenced:
            self._opening.pop(partition, None)
        return await self.of(partition)

    def _open(self, partition: int) -> asyncio.Task[Finals]:
        if partition not in self._opening:
            self._opening[partition] = asyncio.create_task(self._opened(partition))
        return self._opening[partition]

    async def _opened(self, partition: int) -> Finals:
        finals = Finals(self._kafka, partition)
        await finals.open()
        return finals
