"""Qdrant's engine inside this process, its points in a folder that survives a crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from models.retrieval.index import Hit
from models.retrieval.passages import Metadata, StoredPassage, filter_terms, latest, stacked
from models.retrieval.qdrant_points import (
    ID_FIELD,
    SCROLLED_TOGETHER_MAX,
    TERMS_FIELD,
    compared,
    payload,
    point_id,
)
from schemas.errors import IndexRefused, IndexUnavailable


class QdrantEdgeIndex:
    """A PassageIndex in a folder of one process; updates go through the engine's own log."""

    def __init__(self, folder: Path, dim: int, *, exact: bool = True) -> None:
        """Raises IndexUnavailable: the folder cannot be opened or holds another dimension."""
        self._dim = dim
        self._params = edge.SearchParams(exact=exact)
        vectors = edge.EdgeVectorParams(size=dim, distance=edge.Distance.Dot)
        config = edge.EdgeConfig(vectors=vectors)
        with _refusals():
            self._shard = _opened(folder, config)
            # The engine merges small segments and drops deleted points only when asked to.
            self._shard.optimize()

    def apply(self, upserts: Sequence[StoredPassage], deletes: Sequence[str]) -> None:
        passages = latest(upserts)
        vectors = stacked(passages, self._dim)  # checked before anything changes
        points = [
            edge.Point(point_id(passage.passage_id), vector, payload(passage))
            for passage, vector in zip(passages, vectors.tolist(), strict=True)
        ]
        ids: list[edge.PointId] = [point_id(passage_id) for passage_id in deletes]
        with _refusals():
            if ids:
                self._shard.update(edge.UpdateOperation.delete_points(ids))
            if points:
                self._shard.update(edge.UpdateOperation.upsert_points(points))

    def retain(self, states: Mapping[str, int]) -> set[str]:
        with _refusals():
            held, strangers = compared(self._payloads(), states)
        self.apply([], strangers)
        return held

    def search(self, queries: np.ndarray, top_k: int, filters: Metadata) -> list[list[Hit]]:
        if top_k <= 0 or len(queries) == 0:
            return [[] for _ in queries]
        requests = [
            edge.QueryRequest(
                limit=top_k,
                query=edge.Query.Nearest(query),
                filter=_filter(filters),
                params=self._params,
                with_payload=True,
            )
            for query in np.asarray(queries, dtype=np.float32).tolist()
        ]
        try:
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        except Exception as error:
            len(self)  # raises IndexUnavailable if it is not these queries that are at fault
            raise IndexRefused(
                f"Qdrant's engine refused a search: {error}", "Correct the prompt's filters."
            ) from error
        return [[_hit(point) for point in answer] for answer in answers]

    def __len__(self) -> int:
        with _refusals():
            return self._shard.count(edge.CountRequest(exact=True))

    def _payloads(self) -> Iterator[Mapping[str, Any] | None]:
        offset: edge.PointId | None = None
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=SCROLLED_TOGETHER_MAX, with_payload=True, with_vector=False
            )
            records, offset = self._shard.scroll(request)
            yield from (record.payload for record in records)
            if offset is None:
                return

    def close(self) -> None:
        with _refusals():
            self._shard.flush()
            self._shard.close()


def _opened(folder: Path, config: edge.EdgeConfig) -> edge.EdgeShard:
    if folder.exists() and any(folder.iterdir()):
        return edge.EdgeShard.load(str(folder), config)
    folder.mkdir(parents=True, exist_ok=True)
    shard = edge.EdgeShard.create(str(folder), config)
    keyword = edge.PayloadSchemaType.Keyword
    shard.update(edge.UpdateOperation.create_field_index(TERMS_FIELD, keyword))
    return shard


def _filter(filters: Metadata) -> edge.Filter | None:
    if not filters:
        return None
    matches = [edge.MatchValue(term) for term in filter_terms(filters)]
    return edge.Filter(must=[edge.FieldCondition(TERMS_FIELD, match=m) for m in matches])


def _hit(point: edge.ScoredPoint) -> Hit:
    return Hit(str((point.payload or {})[ID_FIELD]), point.score)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the binding raises bare Exception for everything
        raise IndexUnavailable(
            f"Qdrant's engine refused an operation: {error}",
            "Check the folder's disk and rights; after a change of the embedder name another one.",
        ) from error
