"""Banded Toeplitz strategies: the last `bands` rounds of noise are kept and partly taken back."""

from __future__ import annotations

import msgspec
import numpy as np

from models.privacy.toeplitz import Vector, check_decreasing
from schemas.errors import SettingsInvalid


class Banded(msgspec.Struct, frozen=True, tag="banded"):
    """c_0 = 1, c_1, ...; the rest is zero. `Banded((1.0,))` is independent noise.

    Raises SettingsInvalid for coefficients whose sensitivity is not known.
    """

    bands: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.bands:
            raise SettingsInvalid("A banded strategy has no band.", "Give one at least: 1.")
        check_decreasing(np.array(self.bands))

    def coefficients(self, rounds: int) -> Vector:
        """c_0 ... c_(rounds-1), zero from the last band on."""
        found = np.zeros(rounds)
        found[: len(self.bands)] = self.bands[:rounds]
        return found


INDEPENDENT = Banded((1.0,))
