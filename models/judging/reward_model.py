"""What reward an answer will get, from cheap numbers: a linear model that learns with every event.

River's scaler and linear regression with Huber's loss, which a few absurd ratings do not move far.
Each event is predicted before it is learned, so the errors told are those of progressive validation
(Bifet & Gavalda 2010): nothing is ever judged on what it was learned from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import msgspec
from river import linear_model, optim, preprocessing, utils

_RATE: Final = 0.03
_HUBER: Final = 0.5
_LEAST: Final = -1.0
_MOST: Final = 1.0
# Told of so many model versions; of older ones only the total goes on.
VERSIONS_MAX: Final = 8


class Errors(msgspec.Struct):
    """Sums over events that were predicted before they were learned; `plain` are the errors of the
    mean of all rewards before, which a model must beat to be of use."""

    events: int = 0
    rewards: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0
    plain_squared: float = 0.0
    signs: int = 0

    def add(self, predicted: float, reward: float) -> None:
        """Takes one event in."""
        mean = self.rewards / self.events if self.events else 0.0
        self.events += 1
        self.rewards += reward
        self.absolute += abs(predicted - reward)
        self.squared += (predicted - reward) ** 2
        self.plain_squared += (mean - reward) ** 2
        self.signs += (predicted > 0.0) == (reward > 0.0)

    def figures(self) -> dict[str, float]:
        """`skill` is the share of the mean's squared error that the model saves."""
        events = max(self.events, 1)
        return {
            "events": float(self.events),
            "reward_mean": self.rewards / events,
            "mae": self.absolute / events,
            "rmse": math.sqrt(self.squared / events),
            "skill": 1.0 - self.squared / self.plain_squared if self.plain_squared else 0.0,
            "sign_accuracy": self.signs / events,
        }


class RewardState(msgspec.Struct, frozen=True):
    """All that the model knows, as plain numbers that JSON keeps exactly."""

    weights: dict[str, float]
    intercept: float
    iterations: int
    counts: dict[str, int]
    means: dict[str, float]
    variances: dict[str, float]
    errors: dict[str, Errors]


@dataclass(slots=True)
class RewardModel:
    """Predicts rewards in [-1, 1]. `errors` has the total under "", then one entry a version."""

    scaler: preprocessing.StandardScaler = field(default_factory=preprocessing.StandardScaler)
    regression: linear_model.LinearRegression = field(init=False)
    errors: dict[str, Errors] = field(default_factory=lambda: {"": Errors()})

    def __post_init__(self) -> None:
        self.regression = linear_model.LinearRegression(
            optimizer=optim.SGD(_RATE), loss=optim.losses.Huber(_HUBER)
        )

    def expected(self, features: dict[str, float]) -> float:
        """The reward that an answer promises."""
        found = float(self.regression.predict_one(self.scaler.transform_one(features)))
        return min(max(found, _LEAST), _MOST)

    def judge(self, predicted: float, reward: float, model_version: str) -> None:
        """Counts what `expected` said before the reward was known."""
        if model_version not in self.errors and len(self.errors) > VERSIONS_MAX:
            self.errors.pop(next(name for name in self.errors if name))
        for name in ("", model_version):
            self.errors.setdefault(name, Errors()).add(predicted, reward)

    def learn(self, features: dict[str, float], reward: float, weight: float = 1.0) -> None:
        """Learns one event, which counts as `weight` of one."""
        if weight <= 0.0:
            return
        self.scaler.learn_one(features)
        self.regression.learn_one(self.scaler.transform_one(features), reward, weight)

    def state(self) -> RewardState:
        """What `restore` needs."""
        return RewardState(
            weights=dict(self.regression.weights),
            intercept=float(self.regression.intercept),
            iterations=self.regression.optimizer.n_iterations,
            counts=dict(self.scaler.counts),
            means=dict(self.scaler.means),
            variances=dict(self.scaler.vars),
            errors=self.errors,
        )

    def restore(self, state: RewardState) -> None:
        """Goes on as if there had been no restart."""
        self.regression._weights = utils.VectorDict(state.weights)
        self.regression.intercept = state.intercept
        self.regression.optimizer.n_iterations = state.iterations
        self.scaler.counts.update(state.counts)
        self.scaler.means.update(state.means)
        self.scaler.vars.update(state.variances)
        self.errors = state.errors
