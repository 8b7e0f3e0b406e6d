"""Search on a Qdrant server that several replicas share.

No server runs in the tests: they run this class on qdrant-client's own in-memory mode, and the
engine itself through `qdrant_edge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from models.retrieval.index import Hit
from models.retrieval.passages import Metadata, StoredPassage, filter_terms, latest, stacked
from models.retrieval.qdrant_points import (
    ID_FIELD,
    SCROLLED_TOGETHER_MAX,
    TERMS_FIELD,
    WRITTEN_FIELD,
    compared,
    payload,
    point_id,
)
from schemas.errors import IndexRefused, IndexUnavailable

_POINTS_PER_REQUEST_MAX: Final = 512  # about 5 MB of JSON at 384 dimensions; servers take 32 MB
_HTTP_CONFLICT: Final = 409
# The server says that the request itself is wrong: bad request, too large, unprocessable.
_HTTP_REFUSED: Final = (400, 413, 422)


class QdrantIndex:
    """A PassageIndex in a collection of a Qdrant server.

    Replicas that follow the same passages write the same points: ids are derived from passage
    ids and upserts are idempotent. `exact` scans instead of walking the HNSW graph.
    """

    def __init__(
        self,
        location: str,  # a URL, or ":memory:" for the client's own in-memory mode
        dim: int,
        *,
        collection: str = "passages",
        api_key: str | None = None,
        exact: bool = False,
        timeout_s: int = 10,
    ) -> None:
        """Raises IndexUnavailable: no server answers, it refuses, or the dimension differs."""
        self._dim = dim
        self._collection = collection
        self._params = models.SearchParams(exact=exact)
        self._location = location
        with self._refusals():
            self._client = QdrantClient(
                location, api_key=api_key, timeout=timeout_s, check_compatibility=False
            )
            self._ensure_collection()

    def apply(self, upserts: Sequence[StoredPassage], deletes: Sequence[str]) -> None:
        passages = latest(upserts)
        vectors = stacked(passages, self._dim)  # checked before anything changes
        with self._refusals():
            for start in range(0, len(deletes), _POINTS_PER_REQUEST_MAX):
                gone = deletes[start : start + _POINTS_PER_REQUEST_MAX]
                ids = models.PointIdsList(points=[point_id(pid) for pid in gone])
                self._client.delete(self._collection, ids, wait=True)
            for start in range(0, len(passages), _POINTS_PER_REQUEST_MAX):
                chunk = slice(start, start + _POINTS_PER_REQUEST_MAX)
                points = _points(passages[chunk], vectors[chunk])
                self._client.upsert(self._collection, points, wait=True)

    def retain(self, states: Mapping[str, int]) -> set[str]:
        with self._refusals():
            held, strangers = compared(self._payloads(), states)
        # One that a live replica stored just now may be among them: this one stores it again as
        # soon as it reads of it.
        self.apply([], strangers)
        return held

    def search(self, queries: np.ndarray, top_k: int, filters: Metadata) -> list[list[Hit]]:
        if top_k <= 0 or len(queries) == 0:
            return [[] for _ in queries]
        requests = [
            models.QueryRequest(
                query=query,
                limit=top_k,
                filter=_filter(filters),
                params=self._params,
                with_payload=[ID_FIELD],
            )
            for query in np.asarray(queries, dtype=np.float32).tolist()
        ]
        with self._refusals():
            answers = self._client.query_batch_points(self._collection, requests)
        return [[_hit(point) for point in answer.points] for answer in answers]

    def __len__(self) -> int:
        with self._refusals():
            return self._client.count(self._collection, exact=True).count

    def close(self) -> None:
        self._client.close()

    def _payloads(self) -> Iterator[Mapping[str, Any] | None]:
        offset: models.ExtendedPointId | None = None
        while True:
            points, offset = self._client.scroll(
                self._collection,
                limit=SCROLLED_TOGETHER_MAX,
                offset=offset,
                with_payload=[ID_FIELD, WRITTEN_FIELD],
            )
            yield from (point.payload for point in points)
            if offset is None:
                return

    def _ensure_collection(self) -> None:
        if not self._client.collection_exists(self._collection):
            self._create_collection()
        vectors = self._client.get_collection(self._collection).config.params.vectors
        if not isinstance(vectors, models.VectorParams) or vectors.size != self._dim:
            raise IndexUnavailable(
                f"Qdrant collection {self._collection} does not hold {self._dim} dimensions.",
                "Name another collection after a change of the embedder.",
            )

    def _create_collection(self) -> None:
        params = models.VectorParams(size=self._dim, distance=models.Distance.DOT)
        try:
            self._client.create_collection(self._collection, vectors_config=params)
        except UnexpectedResponse as refusal:
            if refusal.status_code != _HTTP_CONFLICT:  # another replica was first: just as good
                raise
        self._client.create_payload_index(
            self._collection, TERMS_FIELD, models.PayloadSchemaType.KEYWORD
        )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            if isinstance(error, UnexpectedResponse) and error.status_code in _HTTP_REFUSED:
                raise IndexRefused(
                    f"Qdrant at {self._location} refused an operation: {error}",
                    "Correct the prompt's filters, or the passage's metadata.",
                ) from error
            raise IndexUnavailable(
                f"Qdrant at {self._location} does not answer as it should: {error}",
                "Check that the server runs, its URL and its API key.",
            ) from error


def _points(passages: Sequence[StoredPassage], vectors: np.ndarray) -> list[models.PointStruct]:
    return [
        models.PointStruct(id=point_id(passage.passage_id), vector=vector, payload=payload(passage))
        for passage, vector in zip(passages, vectors.tolist(), strict=True)
    ]


def _filter(filters: Metadata) -> models.Filter | None:
    if not filters:
        return None
    matches = [models.MatchValue(value=term) for term in filter_terms(filters)]
    return models.Filter(must=[models.FieldCondition(key=TERMS_FIELD, match=m) for m in matches])


def _hit(point: models.ScoredPoint) -> Hit:
    return Hit(str((point.payload or {})[ID_FIELD]), point.score)
