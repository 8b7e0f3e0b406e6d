"""What is told of an adapter's learning: its releases, and that its budget is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.engine.protocol import BASE_VERSION
from models.privacy.ledger import GENESIS, Opening, Round, link
from models.privacy.ledger_schema import Release
from schemas import codec, headers
from schemas.events import (
    LEARNING_BEGUN,
    LEARNING_ENDED,
    LEARNING_ROUND,
    PROGRESSIVE,
    ModelUpdate,
    PrivacySpent,
    Statistic,
)
from schemas.topics import ANALYTICS, MODEL_UPDATES
from streams.producer import Outgoing

SOURCE = "/agents/learn"
FEDERATED: Final = "federated"
UNPROTECTED: Final = "Learned without protection of those whose data it was."


def run_name(opening: Opening) -> str:
    """The name of an adapter's learning; another one for an adapter that began otherwise."""
    return f"{opening.adapter}-{link(GENESIS, opening).digest[:12]}"


def release_update(
    opening: Opening,
    rounds: Sequence[Round],
    release: Release,
    artifact_uri: str,
    config_sha256: str | None = None,
) -> ModelUpdate:
    """The event of a release; the same one however often it is made.

    `rounds` are those of the ledger up to the release at least. Its parent is the release before.
    """
    record, plan = release.record, opening.plan
    federated = opening.settings.get("origin") == FEDERATED
    earlier = [found for found in rounds[: record.number] if found.released]
    parent = earlier[-1] if earlier else None
    before = (parent.epsilon or 0.0) if parent else 0.0
    return ModelUpdate(
        adapter=str(opening.settings.get("teaches", opening.adapter)),
        model_version=record.model_version,
        origin=FEDERATED if federated else "online",
        published_ms=record.time_ms,
        parent_version=record.parent_version or (parent.model_version if parent else BASE_VERSION),
        artifact_uri=artifact_uri,
        artifact_sha256=record.artifact_sha256,
        privacy=PrivacySpent(
            mechanism=plan.mechanism,
            privacy_unit="device" if federated else "user",
            epsilon=None if record.epsilon is None else record.epsilon - before,
            delta=record.delta if plan.private else None,
            epsilon_total=record.epsilon,
            noise_multiplier=plan.noise_multiplier if plan.private else None,
            max_grad_norm=record.max_grad_norm if plan.private else None,
        ),
        evaluation=record.evaluation,
        reason=None if plan.private else UNPROTECTED,
        cohort_first=parent.number + 1 if parent else 0,
        cohort_last=record.number,
        ledger_sha256=release.digest,
        run=run_name(opening),
        artifact_config_sha256=config_sha256,
    )


def update_record(update: ModelUpdate, trace: str | None = None) -> Outgoing:
    """The record of a release. The event's id is its version, so a repeat can be told."""
    event_id = f"{update.adapter}/{update.model_version}"
    made = headers.make_headers(MODEL_UPDATES, event_id, SOURCE, trace)
    return Outgoing(MODEL_UPDATES, update.adapter, codec.checked(MODEL_UPDATES, update), made)


def begun_record(opening: Opening, at_ms: int) -> Outgoing:
    """With which settings an adapter learns; the same event, but for its time, at each start."""
    settings = {name: str(value) for name, value in opening.settings.items()}
    labels = settings | {"noise_multiplier": f"{opening.plan.noise_multiplier:.6g}"}
    return _statistic(LEARNING_BEGUN, opening, at_ms, opening.adapter, labels, {})


def round_record(opening: Opening, record: Round) -> Outgoing:
    """What a round came to: for operators, who see refused versions nowhere else."""
    labels = {"model_version": record.model_version, "released": str(record.released).lower()}
    return _round_statistic(LEARNING_ROUND, opening, record, record.model_version, labels)


def progressive_record(opening: Opening, record: Round, values: dict[str, float]) -> Outgoing:
    """What a round's examples cost before they were learned from (progressive validation)."""
    labels = {"learner": "adapter", "model_version": record.model_version}
    return _statistic(PROGRESSIVE, opening, record.time_ms, record.model_version, labels, values)


def ended_record(opening: Opening, last: Round) -> Outgoing:
    """That an adapter's plan is done; the same event however often it is made."""
    return _round_statistic(LEARNING_ENDED, opening, last, opening.adapter, {})


def _round_statistic(
    name: str, opening: Opening, record: Round, subject: str, labels: dict[str, str]
) -> Outgoing:
    values = {"rounds": float(record.number + 1), **record.evaluation}
    if record.epsilon is not None:
        limit = opening.plan.epsilon()
        values |= {"epsilon": record.epsilon, "epsilon_limit": limit, "delta": record.delta}
    return _statistic(name, opening, record.time_ms, subject, labels, values)


def _statistic(
    name: str,
    opening: Opening,
    at_ms: int,
    subject: str,
    labels: dict[str, str],
    values: dict[str, float],
) -> Outgoing:
    own = {"adapter": opening.adapter, "mechanism": opening.plan.mechanism}
    statistic = Statistic(
        name=name,
        window_start_ms=at_ms,
        window_end_ms=at_ms,
        labels={**own, **labels, "run": run_name(opening)},
        values=values,
    )
    made = headers.make_headers(ANALYTICS, f"{name}/{subject}", SOURCE)
    value = codec.checked(ANALYTICS, statistic)
    return Outgoing(ANALYTICS, f"{name}/{opening.adapter}", value, made)
