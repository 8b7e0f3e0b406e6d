"""From a document's chunks to records of `passages`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.passages.written_passages import WrittenPassages
from agents.runtime.identity import event_id
from agents.runtime.intake import Taken
from schemas import codec, headers, ids
from schemas.events import Document, Passage
from schemas.topics import DOCUMENTS, PASSAGES
from streams.producer import Outgoing
from streams.records import Record


@dataclass(frozen=True, slots=True)
class Split:
    """A decoded document and its chunks; a tombstone has none."""

    taken: Taken
    document_id: str
    document: Document | None
    chunks: list[str]


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


def passage_records(
    split: Split, embeddings: np.ndarray, embedder: str, written: WrittenPassages
) -> list[Outgoing]:
    """A document's passages and the tombstones of those that it had before; counts them as written.

    They share the partition number of the document. Raises EventInvalid.
    """
    record = split.taken.record
    values = [
        (passage.passage_id, codec.encode(passage))
        for passage in passages(split, embeddings, embedder)
    ]
    gone = written.replace(split.document_id, len(split.chunks))
    trace = headers.header(record.headers, "traceparent")
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
