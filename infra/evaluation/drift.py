"""How soon each detector finds that ratings fell, and how often it says so of ratings that did not.

Ratings are drawn as thumbs, so windows vary as those of independent people do; `spread` lets the
share of thumbs up itself vary from window to window, as it does by hour and subject.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import numpy as np

from agents.monitor.drifts import REWARD, SIGNALS
from models.drift.stream import Stream
from models.drift.watch import DETECTORS, DetectorName, Watch
from models.drift.windows import Window

# Ratings without a drift, and before one.
RATINGS: Final = 10_000
# A detector that needs longer is said not to find it.
WINDOWS_MAX: Final = 60
_SHARE_UP: Final = 0.8


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one detector on windows of `ratings`: shares of runs, and the delay in windows."""

    detector: DetectorName
    ratings: int
    false_alarms: float
    within_two: float
    median_windows: float
    slow_windows: float  # 95 of 100 runs are as fast or faster; infinite: not found


def compare(ratings: int, fall: float, runs: int, spread: float, watch: Watch) -> list[Outcome]:
    """All detectors on the same windows."""
    return [_outcome(name, ratings, fall, runs, spread, watch) for name in DETECTORS]


def _outcome(
    name: DetectorName, ratings: int, fall: float, runs: int, spread: float, watch: Watch
) -> Outcome:
    before = max(2, RATINGS // ratings)
    alarms, delays = 0, []
    for seed in range(runs):
        quiet = _windows(2 * seed, ratings, [_SHARE_UP] * before, spread)
        alarms += _found(name, quiet, watch) is not None
        shares = [_SHARE_UP] * before + [_SHARE_UP - fall / 2] * WINDOWS_MAX
        drifting = _windows(2 * seed + 1, ratings, shares, spread)
        found = _found(name, drifting, watch)
        if found is None or found >= before:
            delays.append(math.inf if found is None else found - before + 1)
    delays.sort()
    return Outcome(
        detector=name,
        ratings=ratings,
        false_alarms=alarms / runs,
        within_two=sum(delay <= 2 for delay in delays) / len(delays),
        median_windows=median(delays),
        slow_windows=delays[math.ceil(0.95 * len(delays)) - 1],
    )


def _windows(seed: int, ratings: int, shares: list[float], spread: float) -> Iterator[Window]:
    random = np.random.default_rng(seed)
    for number, share in enumerate(shares):
        varied = min(max(share + random.normal(0, spread), 0.0), 1.0)
        ups = int(random.binomial(ratings, varied))
        yield Window(number, number + 1, 2 * ups / ratings - 1, ratings)


def _found(name: DetectorName, windows: Iterator[Window], watch: Watch) -> int | None:
    """The window at whose end the detector found something, as if it were the only one."""
    if name != "cusum":
        # What the sum finds would become what is usual, and the others would see no more of it.
        watch = replace(watch, threshold=math.inf)
    stream = Stream(SIGNALS[REWARD], watch)
    for window in windows:
        if any(detection.detector == name for detection in stream.add(window)):
            return window.start_ms
    return None
