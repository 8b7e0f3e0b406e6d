"""What `passages` says: one record decoded and checked, a batch of them as changes of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.embedder import Embedder
from models.retrieval.passages import StoredPassage
from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import Passage
from schemas.topics import PASSAGES
from streams.records import Record

# bfloat16 leaves lengths 0.2 % off; whoever rounds less is nearer to 1.
_LENGTH_ERROR_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class Change:
    """The new state of a passage; None: it is deleted.

    `record` is what said so, as long as it may still be needed as it was.
    """

    record: Record | None
    passage_id: str
    passage: StoredPassage | None
    published_ms: int = 0


def decode_change(record: Record, embedder: Embedder) -> Change:
    """The change that a record makes; raises EventInvalid."""
    key = record.key_text or ""
    if record.value is None:
        return Change(record, key, None)
    passage: Passage = codec.decode(PASSAGES, record.value)
    if passage.passage_id != key:
        raise EventInvalid(
            f"The key is {key[:80]!r} but the event says {passage.passage_id[:80]!r}.",
            "Use the passage_id as the key: a tombstone of the key would miss the passage.",
        )
    if passage.embedder != embedder.name or len(passage.embedding) != 4 * embedder.dim:
        raise EventInvalid(
            f"{passage.passage_id} was embedded by {passage.embedder!r} "
            f"({len(passage.embedding) // 4} dimensions), this agent uses {embedder.name!r}.",
            "Set the same HEADWATER_EMBEDDER_NAME everywhere and publish the documents again.",
        )
    return Change(record, key, stored(passage, record.timestamp_ms), passage.published_ms)


def stored(passage: Passage, written_ms: int) -> StoredPassage:
    """A passage as the indexes keep it; raises EventInvalid for an embedding of another length."""
    embedding = np.frombuffer(passage.embedding, dtype="<f4")
    length = float(np.linalg.norm(embedding.astype(np.float64)))
    # Written so that it refuses NaN too: one such score would spoil the records it goes into.
    if not abs(length - 1.0) <= _LENGTH_ERROR_MAX:
        raise EventInvalid(
            f"The embedding of {passage.passage_id} has length {length:.3g} instead of 1.",
            "Scale each vector to length 1 before it is published.",
        )
    return StoredPassage(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        text=passage.text,
        title=passage.title,
        source=passage.source,
        metadata=passage.metadata,
        embedding=embedding,
        written_ms=written_ms,
    )
