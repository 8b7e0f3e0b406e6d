"""How much privacy a learner loses at least, as an attack in one run shows.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run": of m canaries, users
who are there only to be found again, each takes part by the flip of a coin. Whoever sees the
releases guesses the coins, and may abstain. Many right guesses prove that epsilon is not small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter  # type: ignore[import-untyped]
from scipy.stats import binom  # type: ignore[import-untyped]

from models.privacy.toeplitz import Vector

Matrix = NDArray[np.float64]

_EPSILON_MAX = 100.0


@dataclass(frozen=True, slots=True)
class Guesses:
    """`correct` of `guesses` coins of `canaries`; the others were abstained from."""

    canaries: int
    guesses: int
    correct: int


def p_value(found: Guesses, epsilon: float, delta: float) -> float:
    """At most how likely so many right guesses are, if the learner is (epsilon, delta)-private.

    Theorem 5.2: the tail of a binomial for guesses that are right with probability
    1 / (1 + e^-epsilon), and 2 m delta alpha for what delta allows beyond it.
    """
    if found.correct == 0:
        return 1.0
    probability = 1.0 / (1.0 + np.exp(-epsilon))
    tail = float(binom.sf(found.correct - 1, found.guesses, probability))
    # P[correct - i <= Binomial < correct] for i = 1, 2, ...
    fewer = np.arange(1, found.correct + 1)
    masses = np.cumsum(binom.pmf(found.correct - fewer, found.guesses, probability))
    alpha = float(np.max(masses / fewer))
    return min(1.0, tail + 2.0 * found.canaries * delta * alpha)


def epsilon_lower_bound(found: Guesses, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that the guesses refute at `confidence`; 0 where they refute none."""
    low, high = 0.0, _EPSILON_MAX
    if p_value(found, low, delta) > 1.0 - confidence:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        if p_value(found, middle, delta) <= 1.0 - confidence:
            low = middle
        else:
            high = middle
    return low


def guess(scores: Vector, present: NDArray[np.bool_], guesses: int) -> Guesses:
    """Counts right guesses: a positive score says that the canary took part.

    Only the `guesses` scores that are furthest from 0 count; fix that number before any is seen.
    """
    chosen = np.argsort(-np.abs(scores), kind="stable")[:guesses]
    correct = int(np.sum((scores[chosen] > 0.0) == present[chosen]))
    return Guesses(len(scores), len(chosen), correct)


def presence_scores(
    sums: Matrix,
    coefficients: Vector,
    canaries: Matrix,
    rounds: NDArray[np.int64],
    noise: float,
) -> Vector:
    """How much each canary seems to have been there: its most likely coin minus 1/2, (canaries,).

    `sums` (rounds, parameters) are the noisy sums that were released, `coefficients` those of the
    strategy C behind their noise, `canaries` (canaries, parameters) what each adds, if it is there,
    to the sum of its round in `rounds`, and `noise` the deviation of the independent noise. C takes
    the correlation off again; each canary is then in all rounds from its own on, and all
    are estimated together, with a Gaussian prior of the coins' mean and variance.
    """
    count = len(sums)
    # Column t of C is the coefficients from row t on.
    shifts = np.arange(count)[:, None] - np.arange(count)[None, :]
    strategy = np.where(shifts >= 0, coefficients[np.maximum(shifts, 0)], 0.0)
    white = lfilter(coefficients, [1.0], sums, axis=0)
    back = strategy.T @ white
    seen = np.array(
        [canary @ back[number] for canary, number in zip(canaries, rounds, strict=True)]
    )
    overlap = (canaries @ canaries.T) * (strategy.T @ strategy)[np.ix_(rounds, rounds)]
    prior = 4.0 * noise**2 * np.eye(len(canaries))
    found: Vector = np.linalg.solve(overlap + prior, seen - 0.5 * overlap.sum(1))
    return found
