"""Exact search in memory with FAISS.

A flat index, because HNSW in FAISS cannot remove, and a passage must be gone when its document is.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import faiss
import numpy as np

from models.retrieval.index import Hit
from models.retrieval.passages import (
    Metadata,
    StoredPassage,
    filter_terms,
    latest,
    passage_terms,
    stacked,
)


class FaissIndex:
    """A PassageIndex over `IndexIDMap2(IndexFlatIP)`; lost with the process."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._rows = itertools.count()  # FAISS names vectors by int64
        self._row_of: dict[str, int] = {}
        self._passage_of: dict[int, str] = {}
        self._terms_of: dict[int, list[str]] = {}
        self._rows_with: defaultdict[str, set[int]] = defaultdict(set)
        # FAISS allows concurrent searches but no search beside an add or a removal.
        self._lock = threading.Lock()

    def apply(self, upserts: Sequence[StoredPassage], deletes: Sequence[str]) -> None:
        passages = latest(upserts)
        vectors = stacked(passages, self._dim)  # checked before anything changes
        with self._lock:
            self._remove([*deletes, *(passage.passage_id for passage in passages)])
            self._add(passages, vectors)

    def retain(self, states: Mapping[str, int]) -> set[str]:
        with self._lock:
            self._remove(self._row_of.keys() - states.keys())
        return set()  # at its start, when this is asked, it is empty

    def search(self, queries: np.ndarray, top_k: int, filters: Metadata) -> list[list[Hit]]:
        with self._lock:
            rows = self._matching(filters)
            k = min(top_k, len(self._row_of) if rows is None else len(rows))
            if k <= 0:
                return [[] for _ in queries]
            scores, found = self._index.search(
                np.ascontiguousarray(queries, dtype=np.float32), k, params=_only(rows)
            )
            return [self._hits(*pair) for pair in zip(scores, found, strict=True)]

    def __len__(self) -> int:
        return len(self._row_of)

    def close(self) -> None:
        with self._lock:
            self._index.reset()

    def _add(self, passages: Sequence[StoredPassage], vectors: np.ndarray) -> None:
        rows = list(itertools.islice(self._rows, len(passages)))
        for row, passage in zip(rows, passages, strict=True):
            self._row_of[passage.passage_id] = row
            self._passage_of[row] = passage.passage_id
            self._terms_of[row] = passage_terms(passage)
            for term in self._terms_of[row]:
                self._rows_with[term].add(row)
        if rows:
            self._index.add_with_ids(vectors, np.asarray(rows, dtype=np.int64))

    def _remove(self, passage_ids: Iterable[str]) -> None:
        rows = [row for pid in set(passage_ids) if (row := self._row_of.pop(pid, None)) is not None]
        for row in rows:
            del self._passage_of[row]
            for term in self._terms_of.pop(row):
                self._rows_with[term].discard(row)
                if not self._rows_with[term]:
                    del self._rows_with[term]
        if rows:
            self._index.remove_ids(_selector(rows))

    def _matching(self, filters: Metadata) -> set[int] | None:
        """The rows that carry every filter, or None for all of them."""
        if not filters:
            return None
        return set.intersection(*(self._rows_with.get(t, set()) for t in filter_terms(filters)))

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
        pairs = zip(scores.tolist(), rows.tolist(), strict=True)
        return [Hit(self._passage_of[row], score) for score, row in pairs if row >= 0]


def _only(rows: set[int] | None) -> faiss.SearchParameters | None:
    if rows is None:
        return None
    # FAISS' types miss that its Python layer takes fields as arguments, and keeps them alive.
    return faiss.SearchParameters(sel=_selector(rows))  # type: ignore[call-arg]


def _selector(rows: Collection[int]) -> faiss.IDSelectorBatch:
    return faiss.IDSelectorBatch(np.fromiter(rows, dtype=np.int64, count=len(rows)))
