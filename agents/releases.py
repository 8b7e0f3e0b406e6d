"""What is told of an adapter's learning: its releases, and that its budget is spent."""

from __future__ import annotations

from collections.abc import Sequence

from models.privacy.ledger import Opening, Round
from models.privacy.ledger_schema import Release
from schemas import codec, headers
from schemas.events import LEARNING_ENDED, ModelUpdate, PrivacySpent, Statistic
from schemas.topics import ANALYTICS, MODEL_UPDATES
from streams.producer import Outgoing

SOURCE = "/agents/learn"
BASE = "base"


def release_update(
    opening: Opening, rounds: Sequence[Round], release: Release, artifact_uri: str
) -> ModelUpdate:
    """The event of a release; the same one however often it is made.

    `rounds` are those of the ledger up to the release at least. Its parent is the release before.
    """
    record, plan = release.record, opening.plan
    earlier = [found for found in rounds[: record.number] if found.released]
    parent = earlier[-1] if earlier else None
    before = (parent.epsilon or 0.0) if parent else 0.0
    return ModelUpdate(
        adapter=opening.adapter,
        model_version=record.model_version,
        origin="online",
        published_ms=record.time_ms,
        parent_version=parent.model_version if parent else BASE,
        artifact_uri=artifact_uri,
        artifact_sha256=record.artifact_sha256,
        privacy=PrivacySpent(
            mechanism=plan.mechanism,
            epsilon=None if record.epsilon is None else record.epsilon - before,
            delta=record.delta if plan.private else None,
            epsilon_total=record.epsilon,
            noise_multiplier=plan.noise_multiplier if plan.private else None,
            max_grad_norm=record.max_grad_norm if plan.private else None,
        ),
        evaluation=record.evaluation,
        reason=None if plan.private else "Learned without protection of those who gave feedback.",
        cohort_first=parent.number + 1 if parent else 0,
        cohort_last=record.number,
        ledger_sha256=release.digest,
    )


def update_record(update: ModelUpdate) -> Outgoing:
    """The record of a release. The event's id is its version, so a repeat can be told."""
    event_id = f"{update.adapter}/{update.model_version}"
    made = headers.make_headers(MODEL_UPDATES, event_id, SOURCE)
    return Outgoing(MODEL_UPDATES, update.adapter, codec.checked(MODEL_UPDATES, update), made)


def ended_record(opening: Opening, last: Round) -> Outgoing:
    """That an adapter's plan is done; the same event however often it is made."""
    key = f"{LEARNING_ENDED}/{opening.adapter}"
    values = {"rounds": float(last.number + 1)}
    if last.epsilon is not None:
        values |= {"epsilon": last.epsilon, "delta": last.delta}
    statistic = Statistic(
        name=LEARNING_ENDED,
        window_start_ms=last.time_ms,
        window_end_ms=last.time_ms,
        labels={"adapter": opening.adapter, "mechanism": opening.plan.mechanism},
        values=values,
    )
    made = headers.make_headers(ANALYTICS, key, SOURCE)
    return Outgoing(ANALYTICS, key, codec.checked(ANALYTICS, statistic), made)
