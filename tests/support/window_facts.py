"""What the oracle of the windows is made of: facts, their windows, and sums over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from window_events import Made

from streams.windows.settings import AnalyticsSettings

Key = tuple[str, frozenset[tuple[str, str]], int, int]
Values = dict[str, float]
Statistics = dict[Key, Values]
Facts = dict[tuple[int, str], list[Any]]


@dataclass(frozen=True)
class Exchange:
    """Feedback with the answer that it met within the interval, if any."""

    at_ms: int
    feedback: dict[str, Any]
    answer: dict[str, Any] | None


def percentile(values: Iterable[float], share: float) -> float:
    """By linear interpolation, of values rounded as the SQL does, to within 1 %."""
    ordered = sorted(_rounded(value) for value in values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def _rounded(value: float) -> float:
    return math.exp(math.floor(math.log(max(value, 1)) / 0.02 + 0.5) * 0.02)


def key_of(name: str, labels: dict[str, str], start_ms: int, end_ms: int) -> Key:
    return name, frozenset(labels.items()), start_ms, end_ms


def known(values: dict[str, float | None]) -> Values:
    return {name: value for name, value in values.items() if value is not None}


def mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def window_of(at_ms: int, size_ms: int) -> int:
    return at_ms // size_ms * size_ms


def once(records: Iterable[Made]) -> Iterator[Made]:
    seen: set[str] = set()
    for record in records:
        assert isinstance(record.value, dict)
        if record.value["feedback_id"] not in seen:
            seen.add(record.value["feedback_id"])
            yield record


def exchanges_of(
    records: Sequence[Made], answers: Sequence[Made], settings: AnalyticsSettings
) -> Iterator[Exchange]:
    known = {answer.key: answer for answer in answers}
    for record in once(record for record in records if record.topic == "feedback"):
        answer, at_ms = known.get(record.key), record.at_ms or 0
        waited_ms = None if answer is None else at_ms - (answer.at_ms or 0)
        met = waited_ms is not None and 0 <= waited_ms <= settings.join_s * 1_000
        yield Exchange(at_ms, record.value, answer.value if met and answer else None)  # type: ignore[arg-type]


def ratings_of(exchanges: Sequence[Exchange]) -> list[float]:
    return [e.feedback["rating"] for e in exchanges if e.feedback.get("rating") is not None]


def positive(ratings: Sequence[float]) -> float | None:
    return mean([float(rating > 0) for rating in ratings])
