"""Lower-triangular Toeplitz matrices: how noise is correlated, and how sensitive that is.

A strategy matrix C has coefficient c_j on its j-th diagonal below the main one, c_0 = 1. The
mechanism is C G + w with independent Gaussian w, from which G + C^-1 w is computed. Each learner
releases the prefix sums of G, in effect: weights are a sum of updates. Power series do all the
work, as Toeplitz matrices multiply like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter  # type: ignore[import-untyped]

from schemas.errors import SettingsInvalid

Vector = NDArray[np.float64]

# Coefficients that fall by rounding errors only are still taken for non-increasing.
_SLACK = 1e-12


class Strategy(Protocol):
    """A Toeplitz strategy of any length."""

    def coefficients(self, rounds: int) -> Vector:
        """c_0 ... c_(rounds-1), shape (rounds,)."""


def square_root(rounds: int) -> Vector:
    """Coefficients of the square root of the prefix-sum matrix (Fichtenberger et al. 2023).

    The best Toeplitz strategy for the largest error of `rounds` prefix sums with one participation.
    """
    j = np.arange(1, rounds, dtype=np.float64)
    return np.concatenate(([1.0], np.cumprod((2.0 * j - 1.0) / (2.0 * j))))


def solve(coefficients: Vector, right: Vector) -> Vector:
    """C^-1 `right`, both of shape (rounds,); missing coefficients are zero."""
    solution: Vector = lfilter([1.0], coefficients, right)
    return solution


def prefix_error(coefficients: Vector, rounds: int) -> float:
    """Standard deviation of the noise in the last prefix sum, for w of variance 1.

    The last is the largest. Its noise is the last row of A C^-1, whose entries are those of C^-1 1.
    """
    return float(np.linalg.norm(solve(coefficients, np.ones(rounds))))


def sensitivity(
    coefficients: Vector, rounds: int, participations_max: int, separation_min: int
) -> float:
    """How far C G moves, in L2 norm, when one user's contributions of norm <= 1 are removed.

    A user is in at most `participations_max` rounds, any two of them `separation_min` or more
    apart. For non-negative, non-increasing coefficients the worst user comes as early and as often
    as allowed (Kalinin & Lampert 2024, theorem 2); vectors are no worse than their norms, as no
    entry of C^T C is negative (Choquette-Choo et al. 2023, corollary 2.1). Exact, not a bound.
    Raises SettingsInvalid for coefficients that the theorem does not cover.
    """
    padded = _padded(coefficients, rounds)
    check_decreasing(padded)
    starts = range(0, rounds, separation_min)[:participations_max]
    return response_norm(padded, starts)


def response_norm(coefficients: Vector, steps: Sequence[int]) -> float:
    """The norm of what contributions of norm 1 in these rounds add to C G; as long as C is."""
    rounds = len(coefficients)
    total = np.zeros(rounds)
    for step in steps:
        total[step:] += coefficients[: rounds - step]
    return float(np.linalg.norm(total))


def loss(strategy: Strategy, rounds: int, participations_max: int = 1, apart: int = 1) -> float:
    """Noise of the worst prefix sum at sensitivity 1 (the max loss; 45.25 = sqrt(2048) for none).

    `apart` is the least separation of two participations.
    """
    coefficients = strategy.coefficients(rounds)
    moved = sensitivity(coefficients, rounds, participations_max, apart)
    return prefix_error(coefficients, rounds) * moved


def check_decreasing(coefficients: Vector) -> None:
    """Raises SettingsInvalid unless 1 = c_0 >= c_1 >= ... >= 0."""
    falls = np.all(np.diff(coefficients) <= _SLACK) and np.all(coefficients >= 0.0)
    if not (falls and coefficients[0] == 1.0):
        raise SettingsInvalid(
            "The coefficients of correlated noise must begin with 1, never rise, and not be "
            "negative: for others the sensitivity is not known.",
            "Compute them with models.privacy.banded or models.privacy.buffered.",
        )


def _padded(coefficients: Vector, rounds: int) -> Vector:
    found = np.zeros(rounds)
    found[: len(coefficients)] = coefficients[:rounds]
    return found
