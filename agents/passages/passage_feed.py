"""passages → the indexes of one replica: the whole topic first, then live.

Every replica reads every record, so each of them meets a malformed one. It becomes a dead letter
once: besides, the replicas share the topic as a group, and the one that has a partition there
buries what nobody can use of it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from os import getpid
from typing import Final

from agents.passages.passage_records import Change, decode_change
from agents.runtime.blame import is_the_records_fault, together_or_alone
from agents.runtime.dead_letters import bury
from agents.runtime.freshness import freshness_statistic
from agents.runtime.intake import Intake
from models.embedder import Embedder
from models.retrieval.retriever import Retriever
from schemas.clock import now_ms
from schemas.topics import PASSAGES
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings

# Passages that enter the indexes together at the start.
_LOADED_TOGETHER_MAX: Final = 1_000
_JUDGED_TOGETHER_MAX: Final = 256

log = logging.getLogger("headwater.retrieve")


class PassageFeed:
    """Keeps a retriever equal to `passages`; `ready` is set once it holds all of them.

    `intake` reads the partitions that this replica answers for.
    """

    def __init__(
        self, kafka: KafkaSettings, producer: Producer, embedder: Embedder, retriever: Retriever
    ) -> None:
        self._producer = producer
        self._embedder = embedder
        self._retriever = retriever
        self._follower = Follower(kafka, PASSAGES, "earliest")
        self._replica = f"{socket.gethostname()}-{getpid()}"
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def follow(self) -> None:
        """Keep the indexes equal to the topic, for ever."""
        await self._follower.open()
        await self._load()
        log.info("index holds %d passages", len(self._retriever))
        self.ready.set()
        while True:
            records = await self._follower.batch()
            changes = [found for record in records if (found := self._decode(record))]
            await self._report_freshness(await self._apply(changes))

    async def bury_malformed(self) -> None:
        """Of the partitions that this replica answers for, for ever."""
        async for batch in self.intake.batches(_JUDGED_TOGETHER_MAX):
            for taken in batch:
                try:
                    decode_change(taken.record, self._embedder)
                except Exception as error:
                    await bury(self._producer, taken.record, "retrieve", error)
                await taken.done()

    async def close(self) -> None:
        """Stop reading."""
        await self._follower.close()

    async def _load(self) -> None:
        """Read the topic to its end, then store the last state of each passage.

        In this order, for other replicas may search the same index: older states never enter it.
        What an earlier life left there, and the topic does not know any more, leaves it.
        """
        alive: dict[str, Change] = {}
        async for record in self._follower.until_caught_up():
            if (change := self._decode(record)) is not None:
                alive.pop(change.passage_id, None)
                if change.passage is not None:
                    # Without the bytes of its record, which may be those of a whole large topic.
                    alive[change.passage_id] = replace(change, record=None)
        states = {pid: change.passage.written_ms for pid, change in alive.items() if change.passage}
        held = await asyncio.to_thread(self._retriever.retain, states)
        changes = list(alive.values())
        for start in range(0, len(changes), _LOADED_TOGETHER_MAX):
            await self._apply(changes[start : start + _LOADED_TOGETHER_MAX], held)

    def _decode(self, record: Record) -> Change | None:
        try:
            return decode_change(record, self._embedder)
        except Exception as error:
            if not is_the_records_fault(error):
                raise
            log.warning("passage %s left out: %s", record.key_text, error)
            return None

    async def _apply(
        self, changes: Sequence[Change], held: Collection[str] = frozenset()
    ) -> list[Change]:
        """Returns what was stored; what the indexes fail at, unforeseen, is left out of them."""
        applied = await together_or_alone(changes, partial(self._store, held), self._refuse)
        return [change for change, _ in applied]

    async def _store(self, held: Collection[str], changes: Sequence[Change]) -> Sequence[Change]:
        latest: dict[str, Change] = {change.passage_id: change for change in changes}
        upserts = [change.passage for change in latest.values() if change.passage is not None]
        deletes = [change.passage_id for change in latest.values() if change.passage is None]
        await asyncio.to_thread(self._retriever.apply, upserts, deletes, held)
        return changes

    async def _refuse(self, change: Change, error: Exception) -> None:
        log.warning("passage %s left out: %s", change.passage_id, error)
        # One index may have taken it before the other failed.
        await asyncio.to_thread(self._retriever.apply, [], [change.passage_id])
        if change.record is not None and self.intake.reads(change.record.partition):
            await bury(self._producer, change.record, "retrieve", error)

    async def _report_freshness(self, changes: Iterable[Change]) -> None:
        """One statistic for each document whose passages can be found from now on."""
        read_ms = now_ms()
        published_ms = {
            change.passage.document_id: change.published_ms for change in changes if change.passage
        }
        sends = [
            self._producer.send(freshness_statistic(document_id, since_ms, read_ms, self._replica))
            for document_id, since_ms in published_ms.items()
        ]
        await asyncio.gather(*sends)
