"""What the retrieve agent calls: both indexes and the passages themselves, kept in step."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from models.retrieval.fusion import fused_scores
from models.retrieval.index import Hit, PassageIndex
from models.retrieval.keyword_index import KeywordIndex
from models.retrieval.passages import Metadata, StoredPassage, latest

Mode = Literal["fused", "dense", "keyword"]

# Fusion looks this deep into each ranking, and at least twice as deep as is asked for.
_CANDIDATES_MIN: Final = 50


@dataclass(frozen=True, slots=True)
class Found:
    """A passage found for a query. `score` orders the answer; its scale depends on the mode."""

    passage: StoredPassage
    score: float
    dense_score: float  # cosine
    keyword_score: float  # BM25; 0 where no word is shared, or where keywords were not asked


class Retriever:
    """Both indexes over the same passages.

    `apply` may run in one thread while others search. A search sees each passage either before
    or after a concurrent change, never without its text.
    """

    def __init__(self, dense: PassageIndex) -> None:
        self._dense = dense
        self._keyword = KeywordIndex()
        self._passages: dict[str, StoredPassage] = {}
        self._write_lock = threading.Lock()

    def retain(self, states: Mapping[str, int]) -> set[str]:
        """Forget every passage whose id is not among `states`, which gives each its written_ms.

        Returns the ids that the dense index holds already, in the same state or a newer one.
        """
        with self._write_lock:
            held = self._dense.retain(states)
            gone = list(self._passages.keys() - states.keys())
            self._keyword.apply([], gone)
            for passage_id in gone:
                del self._passages[passage_id]
            return held

    def apply(
        self,
        upserts: Sequence[StoredPassage],
        deletes: Sequence[str],
        held: Collection[str] = frozenset(),
    ) -> None:
        """Delete, then upsert; every search that starts after the return sees it.

        The dense index is spared the ids in `held`, which `retain` says it has.

        1. The dense index, which may refuse (IndexUnavailable) before anything has changed.
        2. The texts of upserts; a search that was faster drops hits that have none yet.
        3. The keyword index.
        4. The texts of deletes last, for a search may still hold their ids.
        """
        with self._write_lock:
            passages = latest(upserts)
            self._dense.apply([p for p in passages if p.passage_id not in held], deletes)
            self._passages.update((passage.passage_id, passage) for passage in passages)
            self._keyword.apply(passages, deletes)
            for passage_id in set(deletes) - {passage.passage_id for passage in passages}:
                self._passages.pop(passage_id, None)

    def search(
        self,
        texts: Sequence[str],
        vectors: np.ndarray,
        top_k: int,
        mode: Mode = "fused",
        score_floor: float | None = None,
        filters: Metadata | None = None,
    ) -> list[list[Found]]:
        """For each query, given as text and as (q, dim) embedding, at most top_k, best first.

        score_floor is a cosine in every mode: passages below it are left out.
        """
        # A dense ranking needs no reserve: what is below the floor is at its end.
        depth = top_k if mode == "dense" else max(_CANDIDATES_MIN, 2 * top_k)
        nothing: list[list[Hit]] = [[] for _ in texts]
        wanted = filters or {}
        dense = nothing if mode == "keyword" else self._dense.search(vectors, depth, wanted)
        keyword = nothing if mode == "dense" else self._keyword.search(texts, depth, wanted)
        candidates = map(self._candidates, vectors, dense, keyword)
        return [_ranked(found, mode, score_floor)[:top_k] for found in candidates]

    def __len__(self) -> int:
        return len(self._passages)

    def close(self) -> None:
        self._dense.close()
        self._keyword.close()

    def _candidates(
        self, vector: np.ndarray, dense: Sequence[Hit], keyword: Sequence[Hit]
    ) -> list[Found]:
        """Every hit of either index with both scores; the score is not settled yet."""
        cosine_of = {hit.passage_id: hit.score for hit in dense}
        words_of = {hit.passage_id: hit.score for hit in keyword}
        found = []
        for passage_id in cosine_of | words_of:
            passage = self._passages.get(passage_id)
            if passage is not None:
                # A keyword hit may lie too deep in the dense ranking to have its cosine.
                known = cosine_of.get(passage_id)
                cosine = float(vector @ passage.embedding) if known is None else known
                found.append(Found(passage, 0.0, cosine, words_of.get(passage_id, 0.0)))
        return found


def _ranked(candidates: Sequence[Found], mode: Mode, score_floor: float | None) -> list[Found]:
    dense = np.array([found.dense_score for found in candidates])
    keyword = np.array([found.keyword_score for found in candidates])
    scores = {"dense": dense, "keyword": keyword, "fused": fused_scores(dense, keyword)}[mode]
    ranking = [
        replace(candidates[i], score=float(scores[i])) for i in np.argsort(-scores, kind="stable")
    ]
    return [f for f in ranking if score_floor is None or f.dense_score >= score_floor]
