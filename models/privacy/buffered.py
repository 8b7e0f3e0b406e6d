"""Buffered linear Toeplitz strategies (BLT): long memory in a handful of buffers.

c_j = sum_i weight_i decay_i^(j-1) for j >= 1 (Dvijotham et al. 2024; McMahan et al. 2024). As a
power series c(x) = prod_i (1 - zero_i x) / (1 - decay_i x), so its inverse, by which the noise is
filtered, has the same form with both exchanged. Where decays and zeros alternate,
decay_1 > zero_1 > decay_2 > ..., all weights are positive, and the coefficients fall from 1:
their sensitivity is known exactly.
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import torch
from scipy.optimize import minimize  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from models.privacy.toeplitz import Vector
from schemas.errors import SettingsInvalid

# Closer than this in logit, decays and zeros would cancel and lose all their digits.
_GAP_MIN = 1e-2


class BufferedToeplitz(msgspec.Struct, frozen=True, tag="buffered"):
    """`weights` and `decays` of the buffers, alike in number; decays in (0, 1).

    Raises SettingsInvalid for weights that are not positive or add up to more than 1.
    """

    weights: tuple[float, ...]
    decays: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = (
            len(self.weights) == len(self.decays) > 0
            and all(weight > 0.0 for weight in self.weights)
            and all(0.0 < decay < 1.0 for decay in self.decays)
            and sum(self.weights) <= 1.0
        )
        if not sound:
            raise SettingsInvalid(
                "Buffers need positive weights of sum 1 at most, and decays between 0 and 1.",
                "Compute them with optimise_buffers.",
            )

    def coefficients(self, rounds: int) -> Vector:
        """c_0 ... c_(rounds-1)."""
        powers = np.arange(rounds - 1, dtype=np.float64)[:, None]
        tail = np.power(np.array(self.decays), powers) @ np.array(self.weights)
        return np.concatenate(([1.0], tail))


@functools.cache
def optimise_buffers(
    rounds: int, buffers: int = 4, participations_max: int = 1, separation_min: int = 1
) -> BufferedToeplitz:
    """The buffers with the least max loss over `rounds` prefix sums (L-BFGS, float64).

    Less than a second for 2,048 rounds; computed once for the same arguments. Four buffers come
    within 0.1 % of the best Toeplitz strategy there.
    """

    def objective(free: Vector) -> tuple[float, Vector]:
        parameters = torch.tensor(free, dtype=torch.float64, requires_grad=True)
        value = _log_loss(parameters, rounds, participations_max, separation_min)
        (slope,) = torch.autograd.grad(value, parameters)
        return value.item(), slope.numpy()

    options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8}
    # The slowest buffer may remember all rounds a hundred times over, but not for ever.
    bounds = [(-np.log(100.0 * rounds), 3.0)] + [(None, 10.0)] * (2 * buffers - 1)
    found = minimize(
        objective,
        _start(rounds, buffers),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    )
    log_decays, log_zeros = _poles(torch.tensor(found.x, dtype=torch.float64))
    weights, decays = _weights(log_decays, log_zeros), log_decays.exp()
    return BufferedToeplitz(tuple(weights.tolist()), tuple(decays.tolist()))


def _start(rounds: int, buffers: int) -> Vector:
    """Time scales evenly spread, in logarithm, from one round to all of them."""
    positions = np.linspace(-np.log(2.0 * rounds), 0.5, 2 * buffers)
    gaps = np.diff(positions) - _GAP_MIN
    return np.concatenate((positions[:1], np.log(np.expm1(np.maximum(gaps, 1e-2)))))


def _poles(free: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of alternating decays and zeros from unbounded parameters, shape (2 buffers,)."""
    gaps = softplus(free[1:]) + _GAP_MIN
    position = torch.cat((free[:1], free[0] + torch.cumsum(gaps, 0)))
    logarithms = logsigmoid(-position)
    return logarithms[0::2], logarithms[1::2]


def _weights(log_poles: Tensor, log_zeros: Tensor) -> Tensor:
    """Partial fractions: the weight of each pole of prod (1 - zero x) / (1 - pole x)."""
    poles = log_poles.exp()
    above = -torch.expm1(log_zeros[None, :] - log_poles[:, None])  # 1 - zero_j / pole_i
    below = -torch.expm1(log_poles[None, :] - log_poles[:, None])
    below = below + torch.eye(len(poles), dtype=below.dtype)  # Leaves j = i out of the product.
    weights: Tensor = poles * above.prod(1) / below.prod(1)
    return weights


def _series(log_poles: Tensor, log_zeros: Tensor, rounds: int) -> Tensor:
    """Coefficients of prod (1 - zero x) / (1 - pole x), shape (rounds,)."""
    powers = torch.arange(rounds - 1, dtype=log_poles.dtype)[:, None]
    tail = torch.exp(powers * log_poles[None, :]) @ _weights(log_poles, log_zeros)
    return torch.cat((torch.ones(1, dtype=tail.dtype), tail))


def _log_loss(free: Tensor, rounds: int, participations_max: int, separation_min: int) -> Tensor:
    decays, zeros = _poles(free)
    error = torch.linalg.vector_norm(torch.cumsum(_series(zeros, decays, rounds), 0))
    series = _series(decays, zeros, rounds)
    starts = range(0, rounds, separation_min)[:participations_max]
    total = torch.stack(
        [torch.nn.functional.pad(series, (start, 0))[:rounds] for start in starts]
    ).sum(0)
    value: Tensor = error.log() + torch.linalg.vector_norm(total).log()
    return value
