"""How long a document took from publication to being found, as an analytics record."""

from __future__ import annotations

from schemas import codec, headers
from schemas.events import DOCUMENT_FRESHNESS, Statistic
from schemas.topics import ANALYTICS
from streams.producer import Outgoing


def freshness_statistic(
    document_id: str, published_ms: int, retrievable_ms: int, replica: str
) -> Outgoing:
    """Document published → retrievable in one replica."""
    statistic = Statistic(
        name=DOCUMENT_FRESHNESS,
        window_start_ms=published_ms,
        window_end_ms=max(retrievable_ms, published_ms),
        labels={"document_id": document_id, "replica": replica},
        values={"freshness_ms": float(max(retrievable_ms - published_ms, 0))},
    )
    key = f"{DOCUMENT_FRESHNESS}/{document_id}/{replica}"
    made = headers.make_headers(ANALYTICS, f"{key}@{published_ms}", "/agents/retrieve")
    return Outgoing(ANALYTICS, key, codec.encode(statistic), made)
