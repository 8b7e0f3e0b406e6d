"""The Protocol of dense indexes. tests/unit/test_index_checks.py is its specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.retrieval.passages import Metadata, StoredPassage


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found, by reference."""

    passage_id: str
    score: float


class PassageIndex(Protocol):
    """Passages under their embeddings. Each method may run while another thread is in another."""

    def apply(self, upserts: Sequence[StoredPassage], deletes: Sequence[str]) -> None:
        """Delete, then upsert, so that an id in both is there afterwards.

        A passage_id already there is replaced; to delete an absent one is no error. Raises
        IndexUnavailable, without a change, where an embedding has the wrong dimension.
        """
        ...

    def retain(self, states: Mapping[str, int]) -> set[str]:
        """Delete every passage whose id is not among `states`, which gives each its written_ms.

        Returns those that need no upsert, for an earlier life or another replica has stored the
        same state or a newer one.
        """
        ...

    def search(self, queries: np.ndarray, top_k: int, filters: Metadata) -> list[list[Hit]]:
        """For each of (q, dim) queries at most top_k hits by inner product, best first.

        Raises IndexRefused for queries or filters that the index does not take, and
        IndexUnavailable where it does not answer.

        A hit carries every entry of `filters` in its metadata; `document_id` matches the
        passage's document.
        """
        ...

    def __len__(self) -> int:
        """How many passages are there."""
        ...

    def close(self) -> None:
        """Give back files and connections. No call may follow."""
        ...
