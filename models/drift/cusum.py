"""Page's cumulative sum of log-likelihood ratios, for windows of any size.

E. S. Page, Continuous inspection schemes, Biometrika 41 (1954): no test that raises as few false
alarms finds a shift of the expected size sooner (Lorden 1971, Moustakides 1986).

The sum is looked at once a window, however many observations that has: it may have been over the
threshold and come back, so where windows are large less is enough for as few false alarms. How
much less is what D. Siegmund (Sequential Analysis, 1985, chapter X) takes off a boundary for
steps: 0.583 standard deviations of a step, here at both ends of the sum's way.
"""

from __future__ import annotations

from typing import Final

from models.drift.windows import Reference, Signal, Window

_STEP: Final = 2 * 0.583


class Cusum:
    """For one direction: is the mean nearer to the reference's plus `side` times the shift?"""

    def __init__(self, signal: Signal, side: int, threshold: float) -> None:
        """`threshold` is in nats, of evidence that is looked at after each observation."""
        self._signal = signal
        self._side = side
        self._threshold = threshold
        self.sum = 0.0
        self.evidence = 0.0

    def update(self, window: Window, reference: Reference) -> None:
        """Takes the next window."""
        variance = reference.variance
        shift = self._signal.shift
        if self._signal.bounds is None:
            shift *= variance**0.5
        # A reference is known to a standard error, the same in every window: it may be that much
        # nearer. Without it a short, unlucky reference alarms by itself.
        moved = self._side * (window.mean - reference.mean) - (variance / reference.count) ** 0.5
        weight = reference.weight(window)
        gained = weight * shift / variance * (moved - shift / 2)
        self.sum = max(0.0, self.sum + gained)
        self.evidence = self.sum and self.sum + _STEP * self._step(weight, shift, variance)

    def _step(self, weight: float, shift: float, variance: float) -> float:
        """The standard deviation of what a window adds; unbounded signals have theirs estimated
        from few windows, too roughly for that."""
        return shift * (weight / variance) ** 0.5 if self._signal.bounds is not None else 0.0

    @property
    def drift_detected(self) -> bool:
        return self.evidence > self._threshold

    def reset(self) -> None:
        """Begin anew."""
        self.sum = self.evidence = 0.0
