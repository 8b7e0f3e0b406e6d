"""Events of the river as points of a run's curves. Pure; no MLflow and no Kafka."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from schemas.events import (
    LEARNING_BEGUN,
    LEARNING_ENDED,
    LEARNING_ROUND,
    STUDY_ROUND,
    TUNING_RUNG,
    FederatedRound,
    ModelUpdate,
    Statistic,
)

# The statistics that tracking reads; the first part of their records' keys.
STATISTICS: Final = frozenset(
    {LEARNING_BEGUN, LEARNING_ROUND, LEARNING_ENDED, STUDY_ROUND, TUNING_RUNG}
)
# What counts a run's steps, by statistic.
_STEPS: Final = {LEARNING_ROUND: "rounds", STUDY_ROUND: "lessons", TUNING_RUNG: "rung"}


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of a run at one step; a run is known by its name for ever.

    `ended` is MLflow's status of a run that is over. `metrics` may be empty. `parent` names the run
    that this one is a part of.
    """

    run: str
    at_ms: int
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    ended: str | None = None
    parent: str | None = None


def statistic_point(found: Statistic) -> Point | None:
    """A round, a judgement of what was studied, a rung of a tuning, or the beginning or end of an
    adapter's learning; None for other statistics, and for those that name no run."""
    run = found.labels.get("run")
    if found.name not in STATISTICS or run is None:
        return None
    labels = {name: value for name, value in found.labels.items() if name != "run"}
    if found.name == LEARNING_BEGUN:
        return Point(run, found.window_end_ms, params=labels, tags={"kind": "learning"})
    if found.name == LEARNING_ENDED:
        return Point(run, found.window_end_ms, tags={"kind": "learning"}, ended="FINISHED")
    step = int(found.values.get(_STEPS[found.name], 0))
    if found.name == TUNING_RUNG:
        kept = labels.pop("kept", "")
        ended = None if kept == "true" else "FINISHED"
        tags = {"kind": "tuning", "kept": kept}
        return Point(run, found.window_end_ms, step, dict(found.values), labels, tags, ended)
    metrics = found.values | {"released": float(labels.get("released") == "true")}
    tags = {"kind": "learning", "last_version": labels.get("model_version", "")}
    return Point(run, found.window_end_ms, step, metrics, tags=tags)


def round_point(found: FederatedRound) -> Point | None:
    """A federated round that has begun or ended; None for one that somebody only asked for."""
    if found.status == "asked":
        return None
    figures = {
        "clients": found.clients,
        "clients_failed": found.clients_failed,
        "received_bytes": found.received_bytes,
        "duration_s": found.duration_s,
        "epsilon": found.privacy.epsilon if found.privacy else None,
        "epsilon_total": found.privacy.epsilon_total if found.privacy else None,
    }
    ended = {"finished": "FINISHED", "failed": "FAILED"}.get(found.status)
    tags = {
        "kind": "federated round",
        "adapter": found.adapter,
        "model_version": found.model_version,
        "reason": found.reason,
    }
    return Point(
        found.round_id,
        found.at_ms,
        metrics={n: float(v) for n, v in figures.items() if v is not None} if ended else {},
        tags={name: value for name, value in tags.items() if value},
        ended=ended,
        parent=found.run,
    )


def version_tags(update: ModelUpdate) -> dict[str, str]:
    """What the registry says of a release."""
    privacy = update.privacy
    known = {
        "model_version": update.model_version,
        "origin": update.origin,
        "parent_version": update.parent_version,
        "artifact_uri": update.artifact_uri,
        "artifact_sha256": update.artifact_sha256,
        "ledger_sha256": update.ledger_sha256,
        "mechanism": privacy.mechanism if privacy else None,
        "epsilon": privacy.epsilon if privacy else None,
        "epsilon_total": privacy.epsilon_total if privacy else None,
        "delta": privacy.delta if privacy else None,
        "cohorts": _cohorts(update),
        **update.evaluation,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def _cohorts(update: ModelUpdate) -> str | None:
    if update.cohort_first is None or update.cohort_last is None:
        return None
    return f"{update.cohort_first}-{update.cohort_last}"
