"""Optimizers of an adapter, with all their state in named tensors.

Which suits which mechanism was measured (docs/LOG.md): noise hurts Adam, which divides by the
size that it takes the gradient to have; SGD with momentum averages it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch

from models.learning.lora import Trained
from models.privacy.noise import Tensors
from models.privacy.plan import MechanismName

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """`beta` is SGD's momentum and Adam's first decay, `beta_square` Adam's second.

    The learning rate falls linearly from `learning_rate` to `final_share` of it over the rounds.
    """

    kind: Literal["sgd", "adam"]
    learning_rate: float
    beta: float = 0.9
    beta_square: float = 0.95
    final_share: float = 1.0


WITHOUT_NOISE: Final = OptimizerSettings("adam", 2e-3)
# Of what was tried with cohorts of 64 (docs/benchmarks), what learned most: from this budget on,
# SGD on both matrices; below it on B alone, at a rate by the budget. Rates stay the same over the
# rounds, for correlated noise takes itself back only under equal steps.
_EPSILON_LARGE: Final = 8.0
_RATE_OF_BOTH: Final = 0.6
_RATE_OF_B_MAX: Final = 0.8
_RATE_OF_B: Final = {"gaussian": 0.2, "correlated": 0.4}  # For each unit of epsilon.
_COHORT: Final = 64


def suiting(mechanism: MechanismName, epsilon: float, cohort_size: int) -> OptimizerSettings:
    """What suits a mechanism at its budget.

    Smaller cohorts take smaller steps, so that the noise of a step stays what it was measured with.
    """
    if mechanism == "none":
        return WITHOUT_NOISE
    if epsilon >= _EPSILON_LARGE:
        rate = _RATE_OF_BOTH
    else:
        rate = min(_RATE_OF_B_MAX, _RATE_OF_B[mechanism] * epsilon)
    return OptimizerSettings("sgd", rate * min(1.0, cohort_size / _COHORT))


def trained_in(mechanism: MechanismName, epsilon: float) -> Trained:
    """Which matrices to train: much noise, where it falls on both, multiplies itself."""
    return "both" if mechanism == "none" or epsilon >= _EPSILON_LARGE else "b"


class Optimizer:
    """Changes weights in place, one gradient after the other."""

    def __init__(self, settings: OptimizerSettings, weights: Tensors, rounds_max: int) -> None:
        self._settings = settings
        self._rounds_max = rounds_max
        self.step_number = 0
        self._mean = {name: torch.zeros_like(w) for name, w in weights.items()}
        self._square = (
            {name: torch.zeros_like(w) for name, w in weights.items()}
            if settings.kind == "adam"
            else {}
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        done = self.step_number / max(self._rounds_max - 1, 1)
        share = 1.0 - (1.0 - self._settings.final_share) * min(done, 1.0)
        return self._settings.learning_rate * share

    def step(self, weights: Tensors, gradient: Tensors) -> None:
        rate = self.learning_rate
        self.step_number += 1
        for name, weight in weights.items():
            if self._settings.kind == "adam":
                self._adam(name, weight, gradient[name], rate)
            else:
                mean = self._mean[name].mul_(self._settings.beta).add_(gradient[name])
                weight.sub_(mean, alpha=rate)

    def _adam(self, name: str, weight: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        beta, beta_square, step = self._settings.beta, self._settings.beta_square, self.step_number
        mean = self._mean[name].mul_(beta).add_(gradient, alpha=1 - beta)
        square = self._square[name].mul_(beta_square)
        square.addcmul_(gradient, gradient, value=1 - beta_square)
        root = (square / (1 - beta_square**step)).sqrt_().add_(_EPSILON)
        weight.addcdiv_(mean, root, value=-rate / (1 - beta**step))

    def state(self) -> Tensors:
        """Copies, for `restore`."""
        step = {"step": torch.tensor([self.step_number], dtype=torch.int64)}
        means = {f"mean.{name}": t.clone() for name, t in self._mean.items()}
        return step | means | {f"square.{name}": t.clone() for name, t in self._square.items()}

    def restore(self, state: Tensors) -> None:
        """Goes on as if there had been no restart."""
        self.step_number = int(state["step"].item())
        for name, tensor in self._mean.items():
            tensor.copy_(state[f"mean.{name}"])
        for name, tensor in self._square.items():
            tensor.copy_(state[f"square.{name}"])
