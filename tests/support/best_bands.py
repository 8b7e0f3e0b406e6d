"""The best banded strategies, found by optimising every band: what buffers are compared with."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]

from models.privacy.banded import INDEPENDENT, Banded
from models.privacy.toeplitz import Vector, solve, square_root

# c_j / c_(j-1) stays over this, so that its logarithm's gradient exists.
_RATIO_MIN = 1e-9


@functools.cache
def optimise_banded(
    rounds: int, bands: int, participations_max: int = 1, separation_min: int = 1
) -> Banded:
    """The `bands` coefficients with the least max loss over `rounds` prefix sums.

    Kept non-negative and non-increasing by descending in the ratios c_j / c_(j-1), which lie in
    [0, 1] (L-BFGS-B, exact gradients). Seconds for thousands of bands.
    """
    bands = min(bands, rounds)
    starts = np.arange(0, rounds, separation_min)[:participations_max]
    first = square_root(bands)

    def objective(ratios: Vector) -> tuple[float, Vector]:
        c = np.concatenate(([1.0], np.cumprod(ratios)))
        error, error_slope = _error(c, rounds)
        moved, moved_slope = _moved(c, rounds, starts)
        slope = error_slope / error + moved_slope / moved
        # dc_m / dr_j = c_m / r_j for m >= j.
        tail = np.cumsum((slope * c)[:0:-1])[::-1]
        return 0.5 * float(np.log(error) + np.log(moved)), 0.5 * tail / ratios

    if bands == 1:
        return INDEPENDENT
    found = minimize(
        objective,
        first[1:] / first[:-1],
        jac=True,
        method="L-BFGS-B",
        bounds=[(_RATIO_MIN, 1.0)] * (bands - 1),
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )
    return Banded((1.0, *np.cumprod(found.x).tolist()))


def _error(c: Vector, rounds: int) -> tuple[float, Vector]:
    """|C^-1 1|^2 and its gradient, which is -2 <C^-T s, s shifted by j> for s = C^-1 1."""
    s = solve(c, np.ones(rounds))
    back = solve(c, s[::-1])[::-1]
    return float(s @ s), -2.0 * _correlation(back, s, len(c))


def _moved(c: Vector, rounds: int, starts: NDArray[np.int64]) -> tuple[float, Vector]:
    """|sum of the columns at `starts`|^2 and its gradient."""
    ones = np.zeros(rounds)
    ones[starts] = 1.0
    total = np.convolve(ones, c)[:rounds]
    return float(total @ total), 2.0 * _correlation(total, ones, len(c))


def _correlation(left: Vector, right: Vector, lags: int) -> Vector:
    """sum_t left_(t+j) right_t for j < lags, by Fourier transform."""
    size = 2 * len(left)
    spectrum = np.fft.rfft(left, size) * np.conj(np.fft.rfft(right, size))
    found: Vector = np.fft.irfft(spectrum, size)[:lags]
    return found
