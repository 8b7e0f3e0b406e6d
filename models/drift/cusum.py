"""Page's cumulative sum of log-likelihood ratios, for windows of any size.

E. S. Page, Continuous inspection schemes, Biometrika 41 (1954): no test that raises as few false
alarms finds a shift of the expected size sooner (Lorden 1971, Moustakides 1986).
"""

from __future__ import annotations

from models.drift.windows import Reference, Signal, Window


class Cusum:
    """For one direction: is the mean nearer to the reference's plus `side` times the shift?"""

    def __init__(self, signal: Signal, side: int, threshold: float) -> None:
        """`threshold` is in nats: a false alarm about every exp(threshold) windows at most."""
        self._signal = signal
        self._side = side
        self._threshold = threshold
        self.sum = 0.0

    def update(self, window: Window, reference: Reference) -> None:
        """Takes the next window."""
        variance = reference.variance
        shift = self._signal.shift
        if self._signal.bounds is None:
            shift *= variance**0.5
        # A reference is known to a standard error, the same in every window: it may be that much
        # nearer. Without it a short, unlucky reference alarms by itself.
        moved = self._side * (window.mean - reference.mean) - (variance / reference.count) ** 0.5
        gained = reference.weight(window) * shift / variance * (moved - shift / 2)
        self.sum = max(0.0, self.sum + gained)

    @property
    def drift_detected(self) -> bool:
        return self.sum > self._threshold

    def reset(self) -> None:
        """Begin anew."""
        self.sum = 0.0
