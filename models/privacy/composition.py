"""Several Gaussian mechanisms over the same people, run side by side.

Together they are one matrix mechanism: its noise is theirs, in the order in which it is drawn, and
its strategy is block-diagonal and lower-triangular. What one user moves is the root of the sum of
squares of what that user moves in each, and each may depend on what all released before (Denisov et
al. 2022, theorem 2.1). For Gaussian differential privacy: mu² adds up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from models.privacy.gaussian import epsilon_of, mu_of


def composed_epsilon(mus: Iterable[float], delta: float) -> float:
    """What somebody may lose who is in all of them."""
    return epsilon_of(math.sqrt(math.fsum(mu * mu for mu in mus)), delta)


def epsilon_share(epsilon: float, delta: float, parts: int) -> float:
    """The epsilon of each of `parts` equal mechanisms that together have `epsilon`."""
    return epsilon_of(mu_of(epsilon, delta) / math.sqrt(parts), delta)
