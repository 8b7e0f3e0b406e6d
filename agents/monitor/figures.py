"""Which figure of which statistic is shown under which name: one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agents.monitor.board import Board
from schemas.events import (
    CONVERSATIONS,
    DRIFT,
    DRIFT_DETECTED,
    FEEDBACK_JOINED,
    FRESHNESS,
    LABEL_GROUPS,
    LEARNING_ENDED,
    LEARNING_ROUND,
    PRIVACY_SPENT,
    PROGRESSIVE,
    QUALITY,
    Statistic,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One gauge: `fixed` labels besides those of the statistic, and a factor for its unit."""

    metric: str
    meaning: str
    fixed: dict[str, str] = field(default_factory=dict)
    factor: float = 1.0


def _times(value: str, metric: str, meaning: str, quantiles: tuple[int, ...]) -> dict[str, Figure]:
    """Milliseconds by quantile, shown in seconds."""
    return {
        f"{value}p{q}_ms": Figure(metric, meaning, {"quantile": f"0.{q}"}, 1e-3) for q in quantiles
    }


_LABELS: Final = {
    QUALITY: ("model_version",),
    FEEDBACK_JOINED: ("model_version",),
    DRIFT: ("model_version", "signal"),
    CONVERSATIONS: (),
    FRESHNESS: ("what",),
    PRIVACY_SPENT: ("adapter",),
    LABEL_GROUPS: ("label", "group", "model_version"),
    LEARNING_ROUND: ("adapter",),
    LEARNING_ENDED: ("adapter",),
    DRIFT_DETECTED: ("model_version", "signal", "detector"),
}
# Shown until the next one comes, however long that takes.
LASTING: Final = {PRIVACY_SPENT, LEARNING_ROUND, LEARNING_ENDED, DRIFT_DETECTED}
_FIGURES: Final[dict[str, dict[str, Figure]]] = {
    QUALITY: {
        "generations": Figure("window_generations", "Finished answers in the last window."),
        "answered": Figure("window_answered", "Those that ended neither failed nor cancelled."),
        "feedback": Figure("window_feedback", "Feedback in the last window."),
        "feedback_rate": Figure("window_feedback_rate", "Feedback by answer."),
        "reward_mean": Figure("window_reward_mean", "Mean rating, -1 to 1."),
        "positive_share": Figure("window_positive_share", "Share of ratings above 0."),
        "corrected": Figure("window_corrected", "Answers that somebody corrected."),
        "completion_tokens": Figure("window_generation_tokens", "Tokens generated."),
        "tokens_per_s": Figure("window_tokens_per_second", "Tokens a second of the window."),
        **_times(
            "first_token_",
            "window_time_to_first_token_seconds",
            "From a prompt's record to its first token.",
            (50, 95, 99),
        ),
        **_times(
            "total_",
            "window_e2e_request_latency_seconds",
            "From a prompt's record to its finished record.",
            (50, 95, 99),
        ),
    },
    FEEDBACK_JOINED: {
        "joined": Figure("window_feedback_joined", "Feedback that met its answer."),
    },
    DRIFT: {
        "psi": Figure("drift_psi", "Stability index of a signal against its reference."),
        "shift": Figure("drift_shift", "Change of a signal's mean."),
        "count": Figure("drift_observations", "Observations in the window of a signal."),
    },
    CONVERSATIONS: {
        "conversations": Figure("window_conversations", "Conversations that ended."),
        "turns_mean": Figure("window_conversation_turns", "Mean turns of a conversation."),
        "abandoned_share": Figure(
            "window_conversations_abandoned_share", "Share without a good answer at the end."
        ),
        "good_answer_p50_ms": Figure(
            "window_good_answer_seconds", "Median time to an answer rated well.", {}, 1e-3
        ),
    },
    FRESHNESS: _times(
        "",
        "freshness_seconds",
        "Document published to retrievable, feedback to a live version that learned from it.",
        (50, 99),
    ),
    PRIVACY_SPENT: {
        "epsilon_total": Figure("privacy_epsilon_spent", "Epsilon that an adapter has spent."),
    },
    LABEL_GROUPS: {
        "feedback": Figure("group_feedback", "Feedback in the last window, by group of people."),
        "reward_mean": Figure("group_reward_mean", "Mean rating, by group of people."),
        "positive_share": Figure("group_positive_share", "Share above 0, by group of people."),
    },
    LEARNING_ROUND: {
        "rounds": Figure("learning_rounds", "Rounds of learning that an adapter has done."),
        "gate_loss": Figure("learning_gate_loss", "Loss of the last candidate on the gate's set."),
        "gate_loss_live": Figure("learning_gate_loss_live", "Loss of what it had to beat."),
        "epsilon": Figure("privacy_epsilon_spent", "Epsilon that an adapter has spent."),
        "epsilon_limit": Figure("privacy_epsilon_budget", "Epsilon that an adapter may spend."),
    },
    LEARNING_ENDED: {
        "rounds": Figure("learning_ended", "Rounds after which learning ended."),
    },
    DRIFT_DETECTED: {
        "detected_ms": Figure(
            "drift_detected_timestamp_seconds", "When a drift was last found.", {}, 1e-3
        ),
    },
}


def show_statistic(board: Board, statistic: Statistic) -> None:
    """Shows the figures of a statistic that are in the table."""
    if statistic.name == PROGRESSIVE:
        _show_progressive(board, statistic)
    figures = _FIGURES.get(statistic.name)
    if figures is None:
        return
    if statistic.name == LEARNING_ROUND:
        _show_release(board, statistic)
    own = {name: statistic.labels.get(name, "") for name in _LABELS[statistic.name]}
    at_ms, lasting = statistic.window_end_ms, statistic.name in LASTING
    for name, figure in figures.items():
        value = statistic.values.get(name)
        if value is not None:
            labels = own | figure.fixed
            shown = value * figure.factor
            board.show(figure.metric, figure.meaning, labels, shown, at_ms, lasting=lasting)
    board.show(
        "statistic_timestamp_seconds",
        "When the newest statistic of each name is from.",
        {"statistic": statistic.name},
        at_ms / 1000,
        at_ms,
        lasting=True,
    )


def _show_progressive(board: Board, statistic: Statistic) -> None:
    """Each learner has figures of its own."""
    own = {name: statistic.labels.get(name, "") for name in ("learner", "model_version")}
    for name, value in statistic.values.items():
        board.show(
            "progressive_validation",
            "Figures of what is learned one event at a time, tested before it is learned.",
            own | {"figure": name},
            value,
            statistic.window_end_ms,
        )


def _show_release(board: Board, statistic: Statistic) -> None:
    """Whether the gate let the last round's version go live."""
    board.show(
        "learning_round_released",
        "1 where the last round's version went live, 0 where the gate refused it.",
        {"adapter": statistic.labels.get("adapter", "")},
        float(statistic.labels.get("released") == "true"),
        statistic.window_end_ms,
        lasting=True,
    )
