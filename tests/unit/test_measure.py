"""Figures computed from records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.measure import percentiles, tokens_per_s
from schemas.events import Generation, Timings, Usage


def generation(started_ms: int, finished_ms: int, tokens: int) -> Generation:
    timings = Timings(0, 0, started_ms, finished_ms)
    return Generation("g", "p", "", "stop", "m", "v", 1, [], [], Usage(1, tokens), timings)


@pytest.mark.parametrize(
    ("values", "p50", "p99"),
    [
        ([], None, None),
        ([7.0], 7.0, 7.0),
        ([2.0, 1.0], 1.0, 2.0),
        ([3.0, 1.0, 2.0], 2.0, 3.0),
        (range(1, 101), 50, 99),
        (range(1, 1001), 500, 990),
        ([1.234567], 1.23, 1.23),
    ],
)
def test_percentiles_are_the_nearest_ranks(
    values: list[float], p50: float | None, p99: float | None
) -> None:
    assert percentiles(values) == {"p50": p50, "p99": p99, "n": len(values)}


@given(st.lists(st.integers(), min_size=1))
def test_so_many_values_are_at_or_below_a_percentile(values: list[int]) -> None:
    found = percentiles(values)
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        at = found[name]
        assert at in values and at is not None
        assert sum(value <= at for value in values) >= share * len(values)
        assert sum(value < at for value in values) < share * len(values)


@pytest.mark.parametrize(
    ("finished", "rate"),
    [
        ([], None),
        ([generation(0, 0, 5)], None),
        ([generation(0, 1000, 5)], 5.0),
        ([generation(0, 1000, 5), generation(0, 1000, 5)], 10.0),  # together
        ([generation(0, 1000, 5), generation(9000, 10_000, 5)], 5.0),  # idle between
        ([generation(500, 1500, 5), generation(0, 1000, 10)], 10.0),  # overlapping
        ([generation(0, 4000, 8), generation(1000, 2000, 4)], 3.0),  # one within another
    ],
)
def test_tokens_are_counted_over_the_time_of_writing(
    finished: list[Generation], rate: float | None
) -> None:
    assert tokens_per_s(finished) == rate
