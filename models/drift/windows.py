"""Windows of one signal, and what they were like before: the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# What the bound of the variance counts for beside the estimate, in windows.
_BOUND_WINDOWS: Final = 20
# No signal is so even that a window tells everything.
_VARIANCE_SHARE_MIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """The mean of `count` observations of one span of time."""

    start_ms: int
    end_ms: int
    mean: float
    count: float


@dataclass(frozen=True, slots=True)
class Signal:
    """What is known of a signal, and which change of its mean matters.

    `bounds` are the least and the greatest value. `shift` is a change of the mean: of a bounded
    signal as it is, of others in standard deviations of one observation. `sides` are the
    directions that matter: -1 falls, 1 rises.
    """

    shift: float
    sides: tuple[int, ...]
    bounds: tuple[float, float] | None = None


class Reference:
    """Mean and variance of what windows were like before."""

    def __init__(self, signal: Signal) -> None:
        self._bounds = signal.bounds
        self.count = 0.0
        self.windows = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, window: Window) -> None:
        """Takes a window in."""
        if self.windows:
            spread = 1 / window.count + 1 / self.count
            self._squares += (window.mean - self.mean) ** 2 / spread
        self.count += window.count
        self.windows += 1
        self.mean += (window.mean - self.mean) * window.count / self.count

    @property
    def variance(self) -> float:
        """That of one observation, as windows tell it: it holds too what all observations of a
        window share. A bounded signal cannot vary more than (mean - least)(greatest - mean)
        (Bhatia and Davis, 2000), which ratings of -1 and 1 reach; only windows can make it more.
        """
        estimate = self._squares / (self.windows - 1) if self.windows > 1 else 0.0
        if self._bounds is None:
            return max(estimate, 1e-12)
        low, high = self._bounds
        least = _VARIANCE_SHARE_MIN * (high - low) ** 2 / 4
        bound = max((self.mean - low) * (high - self.mean), least)
        weight = self.windows / (self.windows + _BOUND_WINDOWS)
        return max(bound, weight * estimate + (1 - weight) * bound)

    def weight(self, window: Window) -> float:
        """What a window counts for, in observations: less where the reference is short itself."""
        return 1 / (1 / window.count + 1 / self.count)

    def score(self, window: Window) -> float:
        """How many standard errors a window is above the reference."""
        return (window.mean - self.mean) * math.sqrt(self.weight(window) / self.variance)
