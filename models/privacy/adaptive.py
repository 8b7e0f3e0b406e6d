"""A clipping norm that follows a quantile of the users' norms (Andrew et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdaptiveNorm:
    """Moves the norm so that a fraction `quantile` of users is not clipped.

    It reads one noisy number a round: how many were not clipped, each counted +1/2 or -1/2, which
    has its share of the plan's budget. The mechanism's noise grows with the norm, so each round's
    contributions are to the noise what they would be at norm 1.
    """

    quantile: float = 0.5
    learning_rate: float = 0.2

    def next_norm(self, norm: float, noisy_count: float, cohort_size: int) -> float:
        """The norm of the next round, from `sum of (+1/2 or -1/2)` of this one."""
        # A noisy share may lie outside [0, 1]; cut off, as that is only processing.
        share = min(max(noisy_count / cohort_size + 0.5, 0.0), 1.0)
        return norm * math.exp(-self.learning_rate * (share - self.quantile))
