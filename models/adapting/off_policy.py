"""What a policy that was never live would have earned, from the log of one that was.

Importance weighting (Horvitz & Thompson 1952), its self-normalised form (Swaminathan & Joachims
2015) and the doubly robust estimate (Dudik et al. 2011), with intervals of 95 %. All need
the chance with which each logged arm was drawn; a chance of 0 would make them blind, hence the
floor of the policy. A few events of great weight carry such an estimate, and where they happened
to bring no reward their variance looks too small: so the intervals of a log count one more event,
of the greatest weight and the whole range of rewards, and are moved for skewness (Hall 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from models.adapting.policy import Vector
from schemas.errors import DataInvalid

_NORMAL_95: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float

    def holds(self, truth: float) -> bool:
        """Whether the interval has the truth in it."""
        return self.low <= truth <= self.high


class Moments(msgspec.Struct):
    """Weighted count, mean and sum of squared deviations, online (West 1979)."""

    weight: float = 0.0
    squares: float = 0.0
    mean: float = 0.0
    deviations: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Takes one number in."""
        if weight <= 0.0:
            return
        self.weight += weight
        self.squares += weight * weight
        change = value - self.mean
        self.mean += weight / self.weight * change
        self.deviations += weight * change * (value - self.mean)

    def estimate(self) -> Estimate:
        """The mean with its interval; as wide as can be while there are fewer than two numbers."""
        if self.weight == 0.0 or self.weight**2 <= self.squares:
            return Estimate(self.mean, -math.inf, math.inf)
        count = self.weight**2 / self.squares
        variance = self.deviations / self.weight * count / (count - 1.0)
        half = _NORMAL_95 * math.sqrt(variance / count)
        return Estimate(self.mean, self.mean - half, self.mean + half)


def importance_terms(reward: float, propensity: float | None) -> float:
    """One event's part of the estimate of a single arm; `propensity` None: another was drawn."""
    return 0.0 if propensity is None else reward / propensity


def doubly_robust_terms(reward: float, propensity: float | None, expected: float) -> float:
    """The same for the doubly robust estimate; `expected` is what a model says of the arm."""
    return expected + (0.0 if propensity is None else (reward - expected) / propensity)


@dataclass(frozen=True, slots=True)
class Log:
    """Logged draws: `arms` (n,), `propensities` (n,) with which they were drawn, `rewards` (n,)."""

    arms: Vector
    propensities: Vector
    rewards: Vector

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or not np.all(self.propensities > 0.0):
            raise DataInvalid(
                "The log has fewer than two events, or a propensity that is not over 0.",
                "Log the chance with which each arm was drawn.",
            )


def importance_estimate(log: Log, target: Vector) -> Estimate:
    """`target` (n, arms): the chances of the policy that is judged."""
    ratios = _ratios(log, target)
    return _mean(ratios * log.rewards, _unseen(ratios, log.rewards))


def self_normalised_estimate(log: Log, target: Vector) -> Estimate:
    """Divided by the weights' sum instead of n: a little bias, much less variance.

    The interval is the delta method's: of w (r - value) / mean(w).
    """
    ratios = _ratios(log, target)
    value = float((ratios * log.rewards).sum() / max(ratios.sum(), 1e-12))
    shares = ratios / max(ratios.mean(), 1e-12)
    spread = _mean(shares * (log.rewards - value), _unseen(shares, log.rewards))
    return Estimate(value, value + spread.low - spread.value, value + spread.high - spread.value)


def doubly_robust_estimate(log: Log, target: Vector, expected: Vector) -> Estimate:
    """`expected` (n, arms) is a model's prediction, made without the event's own reward."""
    chosen = expected[np.arange(len(log.arms)), log.arms.astype(int)]
    ratios = _ratios(log, target)
    errors = log.rewards - chosen
    return _mean((target * expected).sum(1) + ratios * errors, _unseen(ratios, errors))


def _ratios(log: Log, target: Vector) -> Vector:
    found: Vector = target[np.arange(len(log.arms)), log.arms.astype(int)] / log.propensities
    return found


def _unseen(ratios: Vector, values: Vector) -> float:
    return float(ratios.max() * np.ptp(values))


def _mean(terms: Vector, unseen: float) -> Estimate:
    """The mean of terms (n,), with one more of size `unseen` in its variance."""
    count, value = len(terms), float(terms.mean())
    variance = float(terms.var(ddof=1)) + unseen**2 / count
    error = math.sqrt(variance / count)
    if error == 0.0:
        return Estimate(value, value, value)
    skewness = float(((terms - value) ** 3).mean()) / variance**1.5
    moved = skewness * (1.0 + 2.0 * _NORMAL_95**2) / (6.0 * math.sqrt(count))
    return Estimate(
        value, value + error * (moved - _NORMAL_95), value + error * (moved + _NORMAL_95)
    )
