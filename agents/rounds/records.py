"""What is told of a federated round."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agents.learning.releases import run_name
from agents.rounds.asked_round import event_record
from agents.rounds.flower_round import RoundResult
from agents.rounds.queue import Asked
from models.privacy.ledger import Opening, Round
from schemas import limits
from schemas.clock import now_ms
from schemas.errors import HeadwaterError
from schemas.events import FederatedRound, PrivacySpent
from schemas.topics import FEDERATED_ROUNDS
from streams.producer import Outgoing


def started(asked: Asked, clients: int) -> Outgoing:
    """So many devices are asked; once for each attempt."""
    event = asked.event
    return event_record(
        FederatedRound(event.round_id, "started", event.adapter, now_ms(), clients=clients),
        attempt=asked.attempts + 1,
    )


def finished(
    asked: Asked, opening: Opening, record: Round, result: RoundResult | None, seconds: float
) -> Outgoing:
    """What came of it. `result` is unknown of a round that an earlier process entered."""
    event, plan = asked.event, opening.plan
    before = plan.epsilon(record.number) if plan.private else 0.0
    reason = None if record.released else "The gate refused the version: it is worse than the live."
    told = FederatedRound(
        round_id=event.round_id,
        status="finished",
        adapter=event.adapter,
        at_ms=now_ms(),
        reason=reason,
        clients=len(record.users),
        model_version=record.model_version if record.released else None,
        privacy=PrivacySpent(
            mechanism=plan.mechanism,
            privacy_unit="device",
            epsilon=None if record.epsilon is None else record.epsilon - before,
            delta=record.delta if plan.private else None,
            epsilon_total=record.epsilon,
            noise_multiplier=plan.noise_multiplier if plan.private else None,
            max_grad_norm=record.max_grad_norm,
        ),
        run=run_name(opening),
    )
    if result is not None:
        outcome = result.outcome
        told = msgspec.structs.replace(
            told,
            clients_failed=len(outcome.failed),
            received_bytes=outcome.received_bytes,
            duration_s=seconds,
        )
    return event_record(told)


def failed(asked: Asked, error: HeadwaterError, seconds: float) -> Outgoing:
    """Why there is no result; no privacy was spent."""
    event = asked.event
    return event_record(
        FederatedRound(
            event.round_id,
            "failed",
            event.adapter,
            now_ms(),
            reason=str(error)[: limits.REASON_CHARS_MAX],
            duration_s=seconds,
        )
    )


def ended_in(rounds: Sequence[Round], asked: Asked) -> Round | None:
    """The ledger's round that was asked for by this record, if it is done."""
    source = f"{FEDERATED_ROUNDS.name}/{asked.partition}"
    done = [found for found in rounds if found.offsets.get(source) == asked.offset + 1]
    return done[-1] if done else None
