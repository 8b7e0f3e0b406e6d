"""Asking for a federated round. Apart from what does one, which needs Flower."""

from __future__ import annotations

from typing import Final

from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import FederatedRound
from schemas.topics import FEDERATED_ROUNDS
from streams.producer import Outgoing

SOURCE: Final = "/agents/federate"


def asked_record(adapter: str, round_id: str, reason: str | None = None) -> Outgoing:
    """Asks for a round; `reason` says who or what wants it."""
    return event_record(FederatedRound(round_id, "asked", adapter, now_ms(), reason))


def event_record(event: FederatedRound, attempt: int = 1) -> Outgoing:
    """The record of one step in the life of a round."""
    event_id = f"{event.round_id}/{event.status}/{attempt}"
    made = headers.make_headers(FEDERATED_ROUNDS, event_id, SOURCE)
    value = codec.checked(FEDERATED_ROUNDS, event)
    return Outgoing(FEDERATED_ROUNDS, event.round_id, value, made)
