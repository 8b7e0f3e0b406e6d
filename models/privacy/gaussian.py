"""What a Gaussian mechanism costs, exactly.

Everything that the learner releases about a user is Gaussian noise around that user's clipped
contributions. Such a mechanism has one parameter, mu = sensitivity / standard deviation of the
noise, and k of them together, chosen adaptively, are one with sqrt(mu_1^2 + ... + mu_k^2): Gaussian
differential privacy (Dong, Roth & Su 2022, corollary 2). No bound is lost on the way, so nothing
has to be composed numerically. No amplification by sampling: a stream is not a random sample.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from schemas.errors import SettingsInvalid

# Far beyond any guarantee that means something, and still exact in double precision.
_EPSILON_MAX = 1e6


def delta_of(mu: float, epsilon: float) -> float:
    """The smallest delta at `epsilon` (Balle & Wang 2018, theorem 8)."""
    return math.exp(_log_delta(mu, epsilon)) if mu > 0.0 else 0.0


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon >= 0 at `delta`; infinity where there is no finite one that matters.

    Raises SettingsInvalid unless 0 < delta < 1 and mu >= 0.
    """
    _check(mu, delta)
    if mu == 0.0 or _log_delta(mu, 0.0) <= math.log(delta):
        return 0.0
    high = 1.0
    while _log_delta(mu, high) > math.log(delta):
        high *= 2.0
        if high > _EPSILON_MAX:
            return math.inf
    root = brentq(lambda x: _log_delta(mu, x) - math.log(delta), 0.0, high, xtol=1e-12)
    return float(root)


def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu that is (epsilon, delta)-private. Raises SettingsInvalid out of range."""
    _check(0.0, delta)
    if not 0.0 < epsilon <= _EPSILON_MAX:
        raise SettingsInvalid(
            f"epsilon must be over 0, up to {_EPSILON_MAX:g}, not {epsilon}.",
            "Give an epsilon such as 8 or 2.",
        )
    # Delta grows with mu; at mu = 2 sqrt(epsilon) + 80 it is 1 to the last digit.
    high = 2.0 * math.sqrt(epsilon) + 80.0
    root = brentq(lambda mu: _log_delta(mu, epsilon) - math.log(delta), 1e-9, high, xtol=1e-13)
    # On the private side of the root's own tolerance.
    return float(root) - 1e-12


def rho_of(mu: float) -> float:
    """The rho of zero-concentrated privacy (Bun & Steinke 2016, proposition 1.6)."""
    return mu * mu / 2.0


def epsilon_of_rho(rho: float, delta: float) -> float:
    """Epsilon of a *Gaussian* mechanism with this rho.

    Other mechanisms with the same rho may cost more: for them only the looser general bound holds.
    """
    return epsilon_of(math.sqrt(2.0 * rho), delta)


def _log_delta(mu: float, epsilon: float) -> float:
    """log(Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)); logarithms, as delta may be 1e-300."""
    first = float(log_ndtr(mu / 2.0 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2.0 - epsilon / mu))
    if second >= first:  # Rounding, where both are next to nothing.
        return -math.inf
    return first + math.log(-math.expm1(second - first))


def _check(mu: float, delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise SettingsInvalid(f"delta must be between 0 and 1, not {delta}.", "Use 1e-6 or less.")
    if not mu >= 0.0:
        raise SettingsInvalid(f"mu must be 0 or more, not {mu}.", "Check the noise multiplier.")
