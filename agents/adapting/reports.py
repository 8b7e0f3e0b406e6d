"""What adapts, in figures: statistics of progressive validation, of variants and of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Final

from agents.adapting.knowledge import Adapting
from models.judging.labels import LabelQuality
from schemas import codec, headers, limits
from schemas.events import LABEL_CONFUSION, LABEL_QUALITY, PROGRESSIVE, Policy, Statistic
from schemas.topics import ANALYTICS, POLICIES
from streams.producer import Outgoing

SOURCE: Final = "/agents/adapt"


def policy_record(policy: Policy) -> Outgoing:
    """The policy, under an id that says how much it had learned."""
    made = headers.make_headers(POLICIES, f"{policy.learner}/{policy.version}", SOURCE)
    return Outgoing(POLICIES, policy.learner, codec.checked(POLICIES, policy), made)


def report_records(adapting: Adapting) -> list[Outgoing]:
    """All figures as they stand, at the time of the newest outcome."""
    found = _statistics(adapting, adapting.newest_ms)
    return [_record(statistic, adapting.next_offset) for statistic in found]


def _statistics(adapting: Adapting, at_ms: int) -> Iterator[Statistic]:
    for version, errors in adapting.reward.errors.items():
        labels = {"learner": "reward_model", "model_version": version or "all"}
        yield _statistic(PROGRESSIVE, labels, errors.figures(), at_ms)
    counts = {name: float(count) for name, count in adapting.counts.items()}
    yield _statistic(PROGRESSIVE, {"learner": "guard", "model_version": "all"}, counts, at_ms)
    for number, arm in enumerate(adapting.bandit.arms):
        labels = {"learner": "bandit", "model_version": "all", "variant": arm}
        yield _statistic(PROGRESSIVE, labels, adapting.bandit.summary(number), at_ms)
    for quality in adapting.labels.quality():
        yield from _label_statistics(quality, at_ms)


def _label_statistics(quality: LabelQuality, at_ms: int) -> Iterator[Statistic]:
    labels = {"label": quality.label, "model_version": quality.model_version}
    yield _statistic(LABEL_QUALITY, labels, quality.overall, at_ms)
    for name, figures in quality.by_class.items():
        yield _statistic(LABEL_QUALITY, labels | {"class": name}, figures, at_ms)
    cells = {
        f"{truth} → {predicted}": float(count)
        for truth, row in quality.confusion.items()
        for predicted, count in row.items()
    }
    yield _statistic(LABEL_CONFUSION, labels, cells, at_ms)


def _statistic(
    name: str, labels: Mapping[str, str], values: Mapping[str, float], at_ms: int
) -> Statistic:
    # JSON has no infinity: an interval that is not known yet is left out.
    told = {key: value for key, value in values.items() if isfinite(value)}
    cut = {key: value[: limits.LABEL_CHARS_MAX] for key, value in labels.items()}
    return Statistic(name, at_ms, at_ms, cut, told)


def _record(statistic: Statistic, offset: int) -> Outgoing:
    key = "/".join([statistic.name, *statistic.labels.values()])[: limits.ID_CHARS_MAX]
    made = headers.make_headers(ANALYTICS, f"{key}@{offset}", SOURCE)
    return Outgoing(ANALYTICS, key, codec.checked(ANALYTICS, statistic), made)
