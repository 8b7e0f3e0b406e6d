"""What an index stores, and how metadata becomes terms that a filter can match exactly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.errors import IndexUnavailable

Metadata = Mapping[str, str | int | float | bool]

# The one filter key that is no metadata: it matches the passage's own document.
DOCUMENT_KEY = "document_id"


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage with everything that search needs of it."""

    passage_id: str
    document_id: str
    text: str
    title: str | None
    source: str | None
    metadata: Metadata
    embedding: np.ndarray  # (dim,) float32, length 1
    written_ms: int = 0  # the broker's time: of two states of a passage the larger is the newer


def filter_terms(filters: Metadata) -> list[str]:
    """One exact term for each entry: a passage matches when it carries all of them.

    JSON tells `1` from `"1"` and from `true`; `1.0` equals `1`, because a client written in
    JavaScript cannot tell the two apart.
    """
    return [json.dumps([key, _canonical(value)]) for key, value in filters.items()]


def passage_terms(passage: StoredPassage) -> list[str]:
    """The terms that a passage carries; `document_id` is always the passage's own."""
    return filter_terms({**passage.metadata, DOCUMENT_KEY: passage.document_id})


def latest(passages: Iterable[StoredPassage]) -> list[StoredPassage]:
    """The last of each passage_id, for a batch may hold two versions of one passage."""
    return list({passage.passage_id: passage for passage in passages}.values())


def stacked(passages: Sequence[StoredPassage], dim: int) -> np.ndarray:
    """The embeddings as one contiguous (n, dim) float32 array.

    Raises IndexUnavailable where an embedding has another dimension than the index.
    """
    for passage in passages:
        if passage.embedding.shape != (dim,):
            raise IndexUnavailable(
                f"Passage {passage.passage_id} has an embedding of shape "
                f"{passage.embedding.shape}, but the index holds {dim} dimensions.",
                "Publish the documents again after a change of the embedder.",
            )
    rows = [passage.embedding for passage in passages]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), dim)


def _canonical(value: str | int | float | bool) -> str | int | float | bool:
    return int(value) if isinstance(value, float) and value.is_integer() else value
