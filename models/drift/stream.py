"""One signal of one version under watch: windows in, detections out. No clock, no Kafka.

While any cumulative sum is above zero, windows are suspected and kept out of the reference: what
has drifted must not become what is usual. After a detection they are the new reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from river.base import DriftDetector
from river.drift import ADWIN, KSWIN, PageHinkley

from models.drift.cusum import Cusum
from models.drift.watch import DetectorName, Watch
from models.drift.windows import Reference, Signal, Window

# Without bounds the variance has to be estimated: a matter of windows, not of observations.
_WINDOWS_MIN: Final = 20
# What a stream hands on to that of the next version.
_HISTORY_WINDOWS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Detection:
    """A detector's finding at the end of `window`: `mean` is that of the last `windows`, which
    have `count` observations; the reference had `count_reference`."""

    detector: DetectorName
    window: Window
    windows: int
    mean: float
    count: float
    mean_reference: float
    count_reference: float


class Stream:
    """Feed it windows in the order of their ends."""

    def __init__(self, signal: Signal, watch: Watch, before: Iterable[Window] = ()) -> None:
        """`before`: what to hold the first windows against, such as those of the version before."""
        self._signal = signal
        self._watch = watch
        self._reference = Reference(signal)
        self._sums = [Cusum(signal, side, watch.threshold) for side in signal.sides]
        self._river: dict[DetectorName, DriftDetector] = _detectors(signal)
        self._suspected: list[Window] = []
        self._part: Window | None = None
        self._end_ms = 0
        # The newest windows of the reference.
        self.history: deque[Window] = deque(maxlen=_HISTORY_WINDOWS_MAX)
        for window in before:
            self._learn(window)

    def add(self, window: Window) -> list[Detection]:
        """Takes the next window; one that overlaps the last one is passed over, and small ones
        are put together."""
        if window.count <= 0 or window.start_ms < self._end_ms:
            return []
        self._end_ms = window.end_ms
        window = _together(self._part, window)
        bounded = self._signal.bounds is not None
        small = bounded and window.count < self._watch.window_min
        self._part = window if small else None
        if small:
            return []
        if not self._ready:
            self._learn(window)
            return []
        return self._test(window)

    @property
    def _ready(self) -> bool:
        if self._signal.bounds is None:
            return self._reference.windows >= _WINDOWS_MIN
        return self._reference.count >= self._watch.reference_min

    def _test(self, window: Window) -> list[Detection]:
        score = self._reference.score(window)
        for cusum in self._sums:
            cusum.update(window, self._reference)
        self._suspected.append(window)
        found = [self._detection("cusum")] if self._sure else []
        for name, detector in self._river.items():
            detector.update(score)
            if detector.drift_detected and self._matters():
                found.append(self._detection(name))
        if found and found[0].detector == "cusum":
            self._begin_anew()
        elif not any(cusum.sum for cusum in self._sums):
            self._absorb()
        return found

    @property
    def evidence(self) -> float:
        """That of the cumulative sum that has come farthest, nats."""
        return max(cusum.evidence for cusum in self._sums)

    @property
    def _sure(self) -> bool:
        # A handful of ratings may fall very far together.
        enough = sum(window.count for window in self._suspected) >= self._watch.observations_min
        bounded = self._signal.bounds is not None
        return (enough or not bounded) and any(cusum.drift_detected for cusum in self._sums)

    def _matters(self) -> bool:
        """River's detectors see changes in both directions."""
        moved = _mean(self._suspected) - self._reference.mean
        return any(moved * side > 0 for side in self._signal.sides)

    def _begin_anew(self) -> None:
        self._reference = Reference(self._signal)
        self.history.clear()
        for cusum in self._sums:
            cusum.reset()
        self._absorb()

    def _absorb(self) -> None:
        for window in self._suspected:
            self._learn(window)
        self._suspected.clear()

    def _learn(self, window: Window) -> None:
        self._reference.add(window)
        self.history.append(window)

    def _detection(self, name: DetectorName) -> Detection:
        suspected, reference = self._suspected, self._reference
        count = sum(window.count for window in suspected)
        return Detection(
            name,
            suspected[-1],
            len(suspected),
            _mean(suspected),
            count,
            reference.mean,
            reference.count,
        )


def _detectors(signal: Signal) -> dict[DetectorName, DriftDetector]:
    """River's, on standard errors; their figures are those that docs/LOG.md compares."""
    mode = "both" if len(signal.sides) > 1 else "down" if signal.sides[0] < 0 else "up"
    return {
        "page-hinkley": PageHinkley(min_instances=4, delta=1, threshold=6, alpha=1, mode=mode),
        "adwin": ADWIN(delta=0.002, clock=1, grace_period=4),
        "kswin": KSWIN(alpha=1e-4, window_size=30, stat_size=10, seed=1),
    }


def _mean(windows: list[Window]) -> float:
    return sum(w.mean * w.count for w in windows) / sum(w.count for w in windows)


def _together(first: Window | None, second: Window) -> Window:
    if first is None:
        return second
    count = first.count + second.count
    mean = (first.mean * first.count + second.mean * second.count) / count
    return Window(first.start_ms, second.end_ms, mean, count)
