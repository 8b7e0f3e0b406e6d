"""Detectors on windows: a fall is found soon, nothing is found where nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_by_hand import MINUTE_MS, thumbs

from agents.monitor.drift.drifts import SIGNALS
from models.drift.stream import Detection, Stream
from models.drift.watch import Watch
from models.drift.windows import Reference, Window

REWARD = SIGNALS["reward"]


def minutes(means: list[float], count: float) -> Iterator[Window]:
    for number, mean in enumerate(means):
        yield Window(number * MINUTE_MS, (number + 1) * MINUTE_MS, mean, count)


def found(stream: Stream, means: list[float], count: float) -> list[Detection]:
    return [each for window in minutes(means, count) for each in stream.add(window)]


def by_cusum(detections: list[Detection]) -> list[int]:
    """The windows at whose end the cumulative sum found something."""
    return [each.window.end_ms // MINUTE_MS - 1 for each in detections if each.detector == "cusum"]


@pytest.mark.parametrize(("count", "of_40"), [(400, 36), (600, 39)])
def test_a_reward_that_falls_by_a_fifth_is_found_within_two_windows(count: int, of_40: int) -> None:
    windows = []
    for seed in range(40):
        random = Random(seed)
        means = [thumbs(random, 0.8, count) for _ in range(16)]
        means += [thumbs(random, 0.7, count) for _ in range(2)]
        windows += by_cusum(found(Stream(REWARD, Watch()), means, count))
    # Never too soon; what is missed is found in the third window.
    assert set(windows) == {16, 17}
    assert len(windows) >= of_40


@pytest.mark.parametrize("count", [50, 100, 400])
def test_nothing_is_found_in_10_000_ratings_without_drift(count: int) -> None:
    alarms = []
    for seed in range(15):
        random = Random(seed)
        means = [thumbs(random, 0.8, count) for _ in range(10_000 // count)]
        alarms += by_cusum(found(Stream(REWARD, Watch()), means, count))
    assert alarms == []


def test_few_ratings_take_longer_and_are_put_together() -> None:
    random = Random(1)
    means = [thumbs(random, 0.8, 5) for _ in range(400)]
    means += [thumbs(random, 0.6, 5) for _ in range(80)]
    (window, *_) = by_cusum(found(Stream(REWARD, Watch()), means, 5))
    # 0.4 less needs some 100 ratings.
    assert 404 <= window < 460


def test_what_it_says_is_what_happened() -> None:
    stream = Stream(REWARD, Watch())
    (detection, *_) = found(stream, [0.6] * 10 + [0.2], 200)
    assert detection.detector == "cusum"
    assert detection.mean_reference == pytest.approx(0.6)
    assert (detection.mean, detection.windows, detection.count) == (pytest.approx(0.2), 1, 200)
    # From now on this is usual.
    assert found(Stream(REWARD, Watch(), stream.history), [0.2] * 10, 200) == []


def test_a_handful_of_ratings_is_no_drift_however_far_they_fall() -> None:
    stream = Stream(REWARD, Watch())
    assert found(stream, [0.8] * 20, 100) == []
    late = [Window(2_000_000 + n, 2_000_001 + n, -1.0, 25) for n in range(4)]
    alarms = [[each.detector for each in stream.add(window)].count("cusum") for window in late]
    assert alarms == [0, 0, 0, 1]


def test_a_rise_of_the_reward_is_no_drift() -> None:
    assert by_cusum(found(Stream(REWARD, Watch()), [0.2] * 10 + [0.9] * 10, 400)) == []


def test_inputs_may_move_either_way() -> None:
    chars = SIGNALS["prompt_chars"]
    random = Random(2)
    usual = [random.gauss(300, 10) for _ in range(60)]
    for moved in (200, 400):
        means = [*usual, *(random.gauss(moved, 10) for _ in range(3))]
        assert by_cusum(found(Stream(chars, Watch()), means, 100))[:1] == [60]
    assert by_cusum(found(Stream(chars, Watch()), usual, 100)) == []


def test_windows_that_overlap_are_seen_once() -> None:
    stream = Stream(REWARD, Watch(reference_min=10))
    hops = [Window(n, n + 5, 0.5, 20) for n in range(10)]
    for hop in hops:
        stream.add(hop)
    assert len(stream.history) == 2


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.integers(1, 1_000)),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_reference_is_the_mean_of_all_observations(parts: list[tuple[float, int]]) -> None:
    reference = Reference(REWARD)
    for number, (mean, count) in enumerate(parts):
        reference.add(Window(number, number + 1, mean, count))
    total = sum(count for _, count in parts)
    assert reference.count == total
    assert reference.mean == pytest.approx(sum(m * c for m, c in parts) / total, abs=1e-9)
    assert reference.variance >= 0.05 - 1e-12
