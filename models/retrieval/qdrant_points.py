"""How a passage becomes a Qdrant point, the same for the server and the engine in process."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from models.retrieval.passages import StoredPassage, passage_terms

TERMS_FIELD: Final = "terms"  # keyword index; filters match here
ID_FIELD: Final = "passage_id"
WRITTEN_FIELD: Final = "written_ms"
SCROLLED_TOGETHER_MAX: Final = 2_000

# Any fixed UUID would do, but it must never change: stored points are found by it.
_NAMESPACE: Final = uuid.UUID("6f1d8a52-9c0e-5b7a-8f43-2f6f3c1f7f10")


def point_id(passage_id: str) -> str:
    """The same point for the same passage everywhere, so replicas write it idempotently."""
    return str(uuid.uuid5(_NAMESPACE, passage_id))


def payload(passage: StoredPassage) -> dict[str, object]:
    """What Qdrant keeps beside the vector; the text stays with the retriever."""
    return {
        ID_FIELD: passage.passage_id,
        TERMS_FIELD: passage_terms(passage),
        WRITTEN_FIELD: passage.written_ms,
    }


def compared(
    payloads: Iterable[Mapping[str, Any] | None], states: Mapping[str, int]
) -> tuple[set[str], list[str]]:
    """Of the stored points: which ids have their state or a newer one, and which are strangers."""
    held, strangers = set(), []
    for found in payloads:
        passage_id = (found or {})[ID_FIELD]
        if passage_id not in states:
            strangers.append(passage_id)
        elif (found or {}).get(WRITTEN_FIELD, -1) >= states[passage_id]:
            held.add(passage_id)
    return held, strangers
