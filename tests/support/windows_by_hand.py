"""Windows of ratings as the streaming jobs would make them of so many thumbs up and down."""

from __future__ import annotations

from random import Random

from schemas.events import (
    CONVERSATIONS,
    DRIFT,
    DRIFT_DETECTED,
    FEEDBACK_JOINED,
    FEEDBACK_LATE,
    FRESHNESS,
    LABEL_GROUPS,
    LEARNING_ENDED,
    LEARNING_ROUND,
    PRIVACY_SPENT,
    PROGRESSIVE,
    QUALITY,
    Statistic,
)

MINUTE_MS = 60_000


def thumbs(random: Random, share: float, count: int) -> float:
    """The mean of `count` ratings, of which each is 1 with this chance, else -1."""
    return sum(1 if random.random() < share else -1 for _ in range(count)) / count


def rated(version: str, end_ms: int, reward: float, count: int) -> Statistic:
    """One minute of a version."""
    values = {
        "generations": 2.0 * count,
        "answered": 2.0 * count,
        "feedback": float(count),
        "feedback_rate": 0.5,
        "reward_mean": reward,
        "positive_share": (1 + reward) / 2,
        "corrected": 1.0,
        "completion_tokens": 100.0 * count,
        "tokens_per_s": 40.0,
        **{f"{what}_p{q}_ms": 10.0 * q for what in ("first_token", "total") for q in (50, 95, 99)},
    }
    return Statistic(QUALITY, end_ms - MINUTE_MS, end_ms, {"model_version": version}, values)


def one_of_each(version: str, end_ms: int) -> list[Statistic]:
    """A statistic of every name that is shown, with all of its figures."""
    found: dict[str, tuple[dict[str, str], list[str]]] = {
        FEEDBACK_JOINED: ({"model_version": version}, ["joined", "reward_mean"]),
        FEEDBACK_LATE: ({}, ["late", "unmatched"]),
        DRIFT: (
            {"model_version": version, "signal": "prompt_chars"},
            ["psi", "mean", "mean_reference", "shift", "count"],
        ),
        CONVERSATIONS: (
            {},
            ["conversations", "turns_mean", "abandoned_share", "good_answer_p50_ms"],
        ),
        FRESHNESS: ({"what": "document"}, ["count", "p50_ms", "p99_ms"]),
        PRIVACY_SPENT: ({"adapter": "default"}, ["epsilon", "epsilon_total", "rounds"]),
        LABEL_GROUPS: (
            {"label": "language", "group": "de", "model_version": version},
            ["feedback", "reward_mean", "positive_share"],
        ),
        LEARNING_ROUND: (
            {"adapter": "default", "model_version": version, "released": "true"},
            ["rounds", "gate_loss", "gate_loss_live", "epsilon", "epsilon_limit"],
        ),
        LEARNING_ENDED: ({"adapter": "default"}, ["rounds", "epsilon"]),
        DRIFT_DETECTED: (
            {"model_version": version, "signal": "reward", "detector": "cusum", "actions": ""},
            ["detected_ms"],
        ),
        PROGRESSIVE: ({"learner": "bandit", "model_version": version}, ["accuracy"]),
    }
    return [
        rated(version, end_ms, 0.6, 400),
        *(
            Statistic(name, end_ms - MINUTE_MS, end_ms, labels, dict.fromkeys(values, 1.0))
            for name, (labels, values) in found.items()
        ),
    ]
