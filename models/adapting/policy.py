"""How likely each variant is for one prompt, and which one is drawn.

Between the variants whose lower confidence bound is over the baseline's, chances fall with the
inverse of how much worse a variant looks than the best (inverse-gap weighting, SquareCB: Foster &
Rakhlin 2020, algorithm 1). All others, and a variant that nobody has tried, have just the floor. So
each propensity is known, none is under the floor, and what is not proven not to be worse than the
baseline (Kazerouni et al. 2017) serves no more than the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimates:
    """Of all arms, the baseline first: means (arms, d) and covariances (arms, d, d) of weights."""

    means: Vector
    covariances: Vector

    def expected(self, features: Vector) -> Vector:
        """The reward that each arm promises, shape (arms,); `features` (d,)."""
        found: Vector = self.means @ features
        return found

    def deviations(self, features: Vector) -> Vector:
        """The standard deviation of what is promised, shape (arms,)."""
        spread = np.einsum("i,aij,j->a", features, self.covariances, features)
        found: Vector = np.sqrt(np.maximum(spread, 0.0))
        return found


@dataclass(frozen=True, slots=True)
class Rule:
    """`floor` is each arm's least chance, `width` how many deviations a bound is away, and
    `greed` how steeply chances fall with the gap to the best arm."""

    floor: float = 0.05
    width: float = 0.5
    greed: float = 50.0
    learns: bool = True


def propensities(estimates: Estimates, features: Vector, rule: Rule) -> Vector:
    """The chance of each arm, shape (arms,); their sum is 1 and none is under the floor."""
    expected = estimates.expected(features)
    lower = expected - rule.width * estimates.deviations(features)
    allowed = lower > lower[0]
    if not rule.learns:
        allowed[:] = False
    allowed[0] = True
    shares = _inverse_gaps(expected[allowed], rule.greed)
    found = np.full(len(expected), rule.floor)
    found[allowed] += (1.0 - rule.floor * len(expected)) * shares
    return found


def _inverse_gaps(expected: Vector, greed: float) -> Vector:
    best = int(np.argmax(expected))
    shares: Vector = 1.0 / (len(expected) + greed * (expected[best] - expected))
    shares[best] = 0.0
    shares[best] = 1.0 - shares.sum()
    return shares


def draw(chances: Vector, key: str) -> int:
    """The arm for a key such as a prompt's id: the same key and chances give the same arm."""
    number = int.from_bytes(sha256(f"variant\0{key}".encode()).digest()[:7], "big") >> 3
    place = number / 2.0**53
    found = int(np.searchsorted(np.cumsum(chances), place, side="right"))
    return min(found, len(chances) - 1)


def estimates_of(means: Sequence[Any], covariances: Sequence[Any]) -> Estimates:
    """From lists, covariances by rows, as they travel."""
    stacked = np.asarray(means, dtype=np.float64)
    arms, size = stacked.shape
    return Estimates(stacked, np.asarray(covariances, dtype=np.float64).reshape(arms, size, size))
