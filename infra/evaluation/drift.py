"""How soon each detector finds that ratings fell, and how often it says so of ratings that did not.

Ratings are drawn as thumbs, so windows vary as those of independent people do; `spread` lets the
share of thumbs up itself vary from window to window, as it does by hour and subject.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import numpy as np

from agents.monitor.drift.drifts import REWARD, SIGNALS
from models.drift.stream import Stream
from models.drift.watch import DETECTORS, DetectorName, Watch
from models.drift.windows import Window

# Ratings without a drift, and before one.
RATINGS: Final = 10_000
# A detector that needs longer is said not to find it.
WINDOWS_MAX: Final = 60
_SHARE_UP: Final = 0.8


# By detector, the first window at whose end it found something.
Firsts = dict[DetectorName, int]


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
    before = max(2, RATINGS // ratings)
    quiet = [_SHARE_UP] * before
    drifting = quiet + [_SHARE_UP - fall / 2] * WINDOWS_MAX
    alarms = [_found(_windows(2 * n, ratings, quiet, spread), watch) for n in range(runs)]
    found = [_found(_windows(2 * n + 1, ratings, drifting, spread), watch) for n in range(runs)]
    return [_outcome(name, ratings, before, alarms, found) for name in DETECTORS]


def _outcome(
    name: DetectorName, ratings: int, before: int, alarms: list[Firsts], found: list[Firsts]
) -> Outcome:
    windows = [firsts.get(name, math.inf) for firsts in found]
    # What was found before it happened is a false alarm, not a quick one.
    delays = sorted(window - before + 1 for window in windows if window >= before)
    return Outcome(
        detector=name,
        ratings=ratings,
        false_alarms=sum(name in firsts for firsts in alarms) / len(alarms),
        within_two=sum(delay <= 2 for delay in delays) / len(delays),
        median_windows=median(delays),
        slow_windows=delays[math.ceil(0.95 * len(delays)) - 1],
    )


def _windows(seed: int, ratings: int, shares: list[float], spread: float) -> list[Window]:
    random = np.random.default_rng(seed)
    varied = np.clip(np.array(shares) + random.normal(0, spread, len(shares)), 0, 1)
    means = 2 * random.binomial(ratings, varied) / ratings - 1
    return [Window(n, n + 1, float(mean), ratings) for n, mean in enumerate(means)]


def _found(windows: list[Window], watch: Watch) -> Firsts:
    """The window at whose end each detector first found something, as if it were the only one."""
    firsts: Firsts = {}
    # What the sum finds would become what is usual, and the others would see no more of it.
    for own, limit in ((True, watch.threshold), (False, math.inf)):
        stream = Stream(SIGNALS[REWARD], replace(watch, threshold=limit))
        for window in windows:
            for detection in stream.add(window):
                if (detection.detector == "cusum") == own:
                    firsts.setdefault(detection.detector, window.start_ms)
    return firsts
