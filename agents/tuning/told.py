"""What is told of a tuning: losses of its candidates by rung, and the settings to take over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agents.learning.releases import run_name
from agents.tuning.contest import Contest
from schemas import codec, headers
from schemas.events import TUNING_ENDED, TUNING_RUNG, Statistic
from schemas.topics import ANALYTICS
from streams.producer import Outgoing

SOURCE: Final = "/agents/tune"
_FIELDS: Final = ("learning_rate", "rank", "max_grad_norm", "cohort_size")


def rung_statistics(contest: Contest, told: int) -> Iterator[Outgoing]:
    """A record for each candidate of each rung from number `told` on."""
    for result in contest.results[told:]:
        for number, score in result.scores.items():
            labels = _labels(contest, number) | {"kept": str(number in result.kept).lower()}
            rounds = contest.contestants[number].rounds
            last = rounds[contest.schedule.span(result.rung, contest.candidates[number]).stop - 1]
            values = {"rung": result.rung + 1.0, "rounds": last.number + 1.0, "loss": score}
            if last.epsilon is not None:
                values["epsilon"] = last.epsilon
            yield _record(TUNING_RUNG, f"{number}/{result.rung}", labels, values, last.time_ms)


def ended_statistic(contest: Contest) -> Outgoing:
    """The candidate that was left."""
    (winner,) = contest.alive
    score = contest.results[-1].scores[winner]
    at_ms = contest.contestants[winner].rounds[-1].time_ms
    return _record(TUNING_ENDED, "", _labels(contest, winner), {"loss": score}, at_ms)


def settings_lines(contest: Contest) -> list[str]:
    """The winner's settings as the environment sets them."""
    (winner,) = contest.alive
    found = contest.candidates[winner]
    return [f"HEADWATER_LEARN_{name.upper()}={getattr(found, name):g}" for name in _FIELDS]


def _labels(contest: Contest, number: int) -> dict[str, str]:
    candidate, opening = contest.candidates[number], contest.contestants[number].opening
    return {
        "tuning": contest.name,
        "candidate": opening.adapter,
        "mechanism": opening.plan.mechanism,
        "run": run_name(opening),
        **{name: f"{getattr(candidate, name):g}" for name in _FIELDS},
    }


def _record(
    name: str, subject: str, labels: dict[str, str], values: dict[str, float], at_ms: int
) -> Outgoing:
    key = f"{name}/{labels['tuning']}"
    statistic = Statistic(name, at_ms, at_ms, labels, values)
    made = headers.make_headers(ANALYTICS, f"{key}/{subject}".rstrip("/"), SOURCE)
    return Outgoing(ANALYTICS, key, codec.checked(ANALYTICS, statistic), made)
