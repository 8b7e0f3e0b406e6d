"""A contextual bandit: one Bayesian linear regression of the reward for each arm.

The posterior is that of Li et al. 2010 (disjoint LinUCB). With each reward all arms forget a little
(discounted regression: Russac et al. 2019), back to the prior and not to nothing, so that what
nobody tries becomes as uncertain as it was in the beginning and no more. Beside it run off-policy
estimates of what each arm would have earned alone, each reward being judged before it is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from models.adapting.off_policy import Moments, doubly_robust_terms, importance_terms
from models.adapting.policy import Estimates, Vector


class BanditState(msgspec.Struct, frozen=True):
    """All that a bandit knows, as plain numbers that JSON keeps exactly."""

    arms: list[str]
    updates: int
    inverses: list[list[list[float]]]
    sums: list[list[float]]
    plays: list[int]
    importance: list[Moments]
    robust: list[Moments]


@dataclass(slots=True)
class Bandit:
    """`arms` begins with the baseline; features have `size` numbers, the first always 1.

    `ridge` is the prior's precision, `noise` the standard deviation of one reward, and `memory`
    the number of rewards after which one counts 1/e of what it did; none: it counts for ever.
    """

    arms: list[str]
    size: int
    ridge: float = 1.0
    noise: float = 0.5
    memory: float | None = None
    updates: int = 0
    inverses: Vector = field(init=False)
    sums: Vector = field(init=False)
    plays: list[int] = field(init=False)
    importance: list[Moments] = field(init=False)
    robust: list[Moments] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.arms)
        self.inverses = np.repeat(np.eye(self.size)[None] / self.ridge, count, axis=0)
        self.sums = np.zeros((count, self.size))
        self.plays = [0] * count
        self.importance = [Moments() for _ in self.arms]
        self.robust = [Moments() for _ in self.arms]

    def estimates(self) -> Estimates:
        """The posterior of each arm's weights."""
        means = np.einsum("aij,aj->ai", self.inverses, self.sums)
        return Estimates(means, self.inverses * self.noise**2)

    def expected(self, features: Vector) -> Vector:
        """The reward that each arm promises, shape (arms,)."""
        found: Vector = np.einsum("aij,aj,i->a", self.inverses, self.sums, features)
        return found

    def update(
        self, arm: int, features: Vector, reward: float, propensity: float, weight: float = 1.0
    ) -> None:
        """Learn one reward, which counts as `weight` of one. Deterministic: no draw is made."""
        expected = self.expected(features)
        for other in range(len(self.arms)):
            chance = propensity if other == arm else None
            self.importance[other].add(importance_terms(reward, chance), weight)
            self.robust[other].add(
                doubly_robust_terms(reward, chance, float(expected[other])), weight
            )
        self._forget()
        spread = self.inverses[arm] @ features
        share = weight / (1.0 + weight * float(features @ spread))
        self.inverses[arm] -= share * np.outer(spread, spread)
        self.sums[arm] += weight * reward * features
        self.plays[arm] += 1
        self.updates += 1

    def _forget(self) -> None:
        if self.memory is None:
            return
        kept = math.exp(-1.0 / self.memory)
        prior = (1.0 - kept) * self.ridge * np.eye(self.size)
        precisions = kept * np.linalg.inv(self.inverses) + prior
        self.inverses = np.linalg.inv(precisions).astype(np.float64)
        self.sums *= kept

    def state(self) -> BanditState:
        """What `restore` needs."""
        return BanditState(
            self.arms,
            self.updates,
            self.inverses.tolist(),
            self.sums.tolist(),
            self.plays,
            self.importance,
            self.robust,
        )

    def restore(self, state: BanditState) -> None:
        """Goes on as if there had been no restart; arms are taken by name, new ones begin anew."""
        self.updates = state.updates
        for number, name in enumerate(self.arms):
            if name not in state.arms:
                continue
            known = state.arms.index(name)
            inverse = np.asarray(state.inverses[known], dtype=np.float64)
            if inverse.shape != (self.size, self.size):
                continue
            self.inverses[number] = inverse
            self.sums[number] = state.sums[known]
            self.plays[number] = state.plays[known]
            self.importance[number] = state.importance[known]
            self.robust[number] = state.robust[known]

    def summary(self, arm: int) -> dict[str, float]:
        """Figures of one arm for people: how often it was drawn, what it would earn alone."""
        found: dict[str, Any] = {"plays": float(self.plays[arm])}
        for name, moments in (("ips", self.importance[arm]), ("dr", self.robust[arm])):
            estimate = moments.estimate()
            found |= {
                name: estimate.value,
                f"{name}_low": estimate.low,
                f"{name}_high": estimate.high,
            }
        return found
