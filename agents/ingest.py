"""documents → passages: clean, split, embed, replace what the document had before.

For each batch of what has arrived:
1. decode; what is no document goes to dead-letters,
2. split and embed all of it together,
3. write each partition's passages and the tombstones of those gone in one transaction,
4. acknowledge, so that the offsets may be committed.
A worker killed in between does it again, with the same ids and the same outcome.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import numpy as np

from agents.dead_letters import bury
from agents.identity import event_id
from agents.intake import Intake, Taken
from agents.settings import EmbedderSettings, IngestSettings, WorkerSettings
from agents.worker import follow_assignment, make_app, raw_topic, run
from agents.written_passages import WrittenPassages, read_back
from models.documents import split_document
from models.embedder import Embedder
from schemas import codec, headers, ids
from schemas.errors import Fenced, SettingsInvalid
from schemas.events import Document, Passage
from schemas.topics import DOCUMENTS, PASSAGES
from streams.admin import partition_count
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

log = logging.getLogger("headwater.ingest")


@dataclass(frozen=True, slots=True)
class Split:
    """A decoded document and its chunks; a tombstone has none."""

    taken: Taken
    document_id: str
    document: Document | None
    chunks: list[str]


class Ingest:
    """The state of one ingest worker: the embedder and the partitions it writes for."""

    def __init__(self, kafka: KafkaSettings, embedder: Embedder, settings: IngestSettings) -> None:
        self._kafka = kafka
        self._embedder = embedder
        self._settings = settings
        self._producer = Producer(kafka)
        self._owned: set[int] = set()
        self._partitions: dict[int, asyncio.Task[tuple[FencedWriter, WrittenPassages]]] = {}
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Process batches for ever."""
        self.ready.set()
        async for batch in self.intake.batches(self._settings.batch_documents_max):
            splits = [split for taken in batch if (split := await self._split(taken))]
            vectors = await self._embed(splits)
            by_partition: dict[int, list[tuple[Split, np.ndarray]]] = {}
            for split, embeddings in zip(splits, vectors, strict=True):
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
            await bury(self._producer, taken.record, "ingest", error)
            await taken.done()
            return None

    def _chunks(self, document: Document) -> list[str]:
        return split_document(
            document.text,
            document.media_type,
            self._embedder.tokenizer,
            self._settings.passage_tokens_max,
        )

    async def _embed(self, splits: list[Split]) -> list[np.ndarray]:
        """One array (chunks, dim) for each document."""
        chunks = [chunk for split in splits for chunk in split.chunks]
        vectors = await asyncio.to_thread(self._embedder.embed, chunks)
        ends = np.cumsum([len(split.chunks) for split in splits])
        return np.split(vectors, ends[:-1]) if splits else []

    async def _write(self, partition: int, work: list[tuple[Split, np.ndarray]]) -> None:
        if partition not in self._owned:
            # Its new owner reads the same documents again from the committed offset.
            return
        taking_over = self._taking_over(partition)
        try:
            writer, written = await taking_over
            records = [
                record
                for split, embeddings in work
                for record in self._records(split, embeddings, written)
            ]
            if records:
                await writer.write(records)
        except Fenced as error:
            if self._partitions.get(partition) is taking_over:
                # Overtaken without a rebalance: after a long pause there may be newer documents
                # than these. A new start of this worker reads on from the committed offset.
                raise
            log.warning("%s", error)
            return
        for split, _ in work:
            await split.taken.done()

    def _taking_over(self, partition: int) -> asyncio.Task[tuple[FencedWriter, WrittenPassages]]:
        if partition not in self._partitions:
            self._partitions[partition] = asyncio.create_task(self._take_over(partition))
        return self._partitions[partition]

    async def _take_over(self, partition: int) -> tuple[FencedWriter, WrittenPassages]:
        writer = FencedWriter(self._kafka, f"ingest.{partition}")
        await writer.open()
        return writer, await read_back(self._kafka, partition)

    def _records(
        self, split: Split, embeddings: np.ndarray, written: WrittenPassages
    ) -> list[Outgoing]:
        record = split.taken.record
        gone = written.replace(split.document_id, len(split.chunks))
        trace = headers.header(record.headers, "traceparent")
        values = [
            (passage.passage_id, codec.encode(passage))
            for passage in passages(split, embeddings, self._embedder.name)
        ]
        return [
            Outgoing(
                PASSAGES,
                passage_id,
                value,
                headers.make_headers(
                    PASSAGES,
                    f"{passage_id}@{record.offset}",
                    "/agents/ingest",
                    headers.child_traceparent(trace),
                ),
                record.partition,
            )
            for passage_id, value in [*values, *((passage_id, None) for passage_id in gone)]
        ]


def decode_document(record: Record) -> tuple[str, Document | None]:
    """The document_id and the document (None: a tombstone) in a record; raises EventInvalid."""
    if record.value is None:
        return event_id(record, None), None
    document: Document = codec.decode(DOCUMENTS, record.value)
    return event_id(record, document.document_id), document


def passages(split: Split, embeddings: np.ndarray, embedder: str) -> list[Passage]:
    """The passages of a document; embeddings (chunks, dim) float32."""
    document = split.document
    if document is None:
        return []
    return [
        Passage(
            passage_id=ids.passage_id(split.document_id, index),
            document_id=split.document_id,
            index=index,
            text=chunk,
            embedding=embedding.astype("<f4").tobytes(),
            embedder=embedder,
            published_ms=split.taken.record.timestamp_ms,
            title=document.title,
            source=document.source,
            metadata=document.metadata,
        )
        for index, (chunk, embedding) in enumerate(zip(split.chunks, embeddings, strict=True))
    ]


def main() -> None:
    """Run one ingest worker until it is told to stop."""
    kafka, worker = load(KafkaSettings), load(WorkerSettings)
    settings, embedding = load(IngestSettings), load(EmbedderSettings)
    _check_partitions(kafka)
    embedder = Embedder(embedding.name, embedding.device, threads=embedding.threads)
    ingest = Ingest(kafka, embedder, settings)
    app = make_app("ingest", kafka, worker)
    app.agent(raw_topic(app, kafka, DOCUMENTS), name="ingest")(ingest.intake.fill)
    follow_assignment(app, ingest.owns)
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
