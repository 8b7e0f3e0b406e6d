"""documents → passages: clean, split, embed, replace what the document had before.

For each batch of what has arrived:
1. decode; what is no document goes to dead-letters,
2. split and embed all of it together,
3. write each partition's passages and the tombstones of those gone in one transaction,
4. acknowledge, so that the offsets may be committed.
Where 2 or 3 fails for reasons of a document's own, each is tried alone (`blame`).
A worker killed in between does it again, with the same ids and the same outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from agents.passages.document_passages import Split, decode_document, passage_records
from agents.passages.written_passages import WrittenPassages, read_back
from agents.runtime.blame import together_or_alone
from agents.runtime.dead_letters import bury
from agents.runtime.intake import Intake, Taken
from agents.runtime.worker import follow_assignment, make_app, raw_topic, run
from agents.settings import EmbedderSettings, IngestSettings, WorkerSettings
from models.documents import split_document
from models.embedder import Embedder
from schemas.errors import Fenced, SettingsInvalid
from schemas.events import Document
from schemas.topics import DOCUMENTS, PASSAGES
from streams.admin import partition_count
from streams.fenced_writer import FencedWriter
from streams.producer import Producer
from streams.settings import KafkaSettings, load

log = logging.getLogger("headwater.ingest")

Embedded = tuple[Split, np.ndarray]


@dataclass(slots=True)
class Takeover:
    """A partition that this worker writes for, and what is written there already."""

    writer: FencedWriter
    written: WrittenPassages


class Ingest:
    """The state of one ingest worker: the embedder and the partitions it writes for."""

    def __init__(self, kafka: KafkaSettings, embedder: Embedder, settings: IngestSettings) -> None:
        self._kafka = kafka
        self._embedder = embedder
        self._settings = settings
        self._producer = Producer(kafka)
        self._owned: set[int] = set()
        self._partitions: dict[int, asyncio.Task[Takeover]] = {}
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Process batches for ever."""
        self.ready.set()
        async for batch in self.intake.batches(self._settings.batch_documents_max):
            splits = [split for taken in batch if (split := await self._split(taken))]
            embedded = await together_or_alone(splits, self._embed, self._bury_split)
            by_partition: dict[int, list[Embedded]] = {}
            for split, embeddings in embedded:
                partition = split.taken.record.partition
                by_partition.setdefault(partition, []).append((split, embeddings))
            await asyncio.gather(*(self._write(p, work) for p, work in by_partition.items()))

    def owns(self, partitions: set[int]) -> None:
        """The partitions of `documents` that this worker has from now on."""
        self.intake.owns(partitions)
        self._owned = partitions
        for lost in set(self._partitions) - partitions:
            self._partitions.pop(lost)
        for taken_on in partitions:
            # Before the first document comes, which would wait for it.
            self._taking_over(taken_on)

    async def close(self) -> None:
        """Leave the broker."""
        await self._producer.close()

    async def _split(self, taken: Taken) -> Split | None:
        try:
            document_id, document = decode_document(taken.record)
            chunks = await asyncio.to_thread(self._chunks, document) if document else []
            return Split(taken, document_id, document, chunks)
        except Exception as error:
            # Whatever one document does to the splitter, the others go on (law 2).
            await self._bury(taken, error)
            return None

    async def _bury(self, taken: Taken, error: Exception) -> None:
        await bury(self._producer, taken.record, "ingest", error)
        await taken.done()

    async def _bury_split(self, split: Split, error: Exception) -> None:
        await self._bury(split.taken, error)

    async def _bury_embedded(self, item: Embedded, error: Exception) -> None:
        await self._bury(item[0].taken, error)

    def _chunks(self, document: Document) -> list[str]:
        return split_document(
            document.text,
            document.media_type,
            self._embedder.tokenizer,
            self._settings.passage_tokens_max,
        )

    async def _embed(self, splits: Sequence[Split]) -> list[np.ndarray]:
        """One array (chunks, dim) for each document."""
        chunks = [chunk for split in splits for chunk in split.chunks]
        vectors = await asyncio.to_thread(self._embedder.embed, chunks)
        ends = np.cumsum([len(split.chunks) for split in splits])
        return np.split(vectors, ends[:-1]) if splits else []

    async def _write(self, partition: int, work: list[Embedded]) -> None:
        if partition not in self._owned:
            # Its new owner reads the same documents again from the committed offset.
            return
        taking_over = self._taking_over(partition)
        try:
            commit = partial(self._commit, partition, await taking_over)
            done = await together_or_alone(work, commit, self._bury_embedded)
        except Fenced as error:
            if self._partitions.get(partition) is taking_over:
                # Overtaken without a rebalance: after a long pause there may be newer documents
                # than these. A new start of this worker reads on from the committed offset.
                raise
            log.warning("%s", error)
            return
        for (split, _), _ in done:
            await split.taken.done()

    async def _commit(
        self, partition: int, place: Takeover, work: Sequence[Embedded]
    ) -> Sequence[Embedded]:
        """Write the passages of some documents in one transaction, and return what was given."""
        try:
            records = [
                record
                for split, embeddings in work
                for record in passage_records(split, embeddings, self._embedder.name, place.written)
            ]
            if records:
                await place.writer.write(records)
        except Fenced:
            raise
        except Exception:
            # Counted but not written: what was written tells the counts again.
            place.written = await read_back(self._kafka, partition)
            raise
        return work

    def _taking_over(self, partition: int) -> asyncio.Task[Takeover]:
        if partition not in self._partitions:
            self._partitions[partition] = asyncio.create_task(self._take_over(partition))
        return self._partitions[partition]

    async def _take_over(self, partition: int) -> Takeover:
        writer = FencedWriter(self._kafka, f"ingest.{partition}")
        await writer.open()
        return Takeover(writer, await read_back(self._kafka, partition))


def main() -> None:
    """Run one ingest worker until it is told to stop."""
    kafka, worker = load(KafkaSettings), load(WorkerSettings)
    settings, embedding = load(IngestSettings), load(EmbedderSettings)
    _check_partitions(kafka)
    embedder = Embedder(embedding.name, embedding.device, threads=embedding.threads)
    ingest = Ingest(kafka, embedder, settings)
    app = make_app("ingest", kafka, worker)
    documents = raw_topic(app, kafka, DOCUMENTS)
    app.agent(documents, name="ingest")(ingest.intake.fill)
    follow_assignment(app, documents, ingest.owns)
    run(app, worker, [ingest.work], ingest.ready.wait, ingest.close)


def _check_partitions(kafka: KafkaSettings) -> None:
    counts = partition_count(kafka, DOCUMENTS), partition_count(kafka, PASSAGES)
    if counts[0] != counts[1]:
        raise SettingsInvalid(
            f"documents has {counts[0]} partitions and passages {counts[1]}.",
            "Give both topics the same number: a document's passages share its partition.",
        )


if __name__ == "__main__":
    main()
