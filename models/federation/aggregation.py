"""What the server takes of the devices' deltas, before anything is added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.federation.deltas import clip, longest, norm_of, unpack
from models.federation.layout import Flat
from schemas.errors import DataInvalid

# Compression may lengthen a delta by so much; more was not cut on the device.
_NORM_SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Admitted:
    """Deltas by device, each no longer than the norm, and why the others are refused."""

    deltas: dict[int, Flat]
    refused: dict[int, str]


def admit(
    payloads: Mapping[int, bytes], size: int, norm_max: float, noise_multiplier: float = 0.0
) -> Admitted:
    """Unpacks deltas of `size` values and refuses what is malformed, not finite or too long.

    What is admitted is cut to `norm_max` again: privacy rests on it, not on the devices' honesty.
    What devices put noise on is longer: under it an owner's own cut is not seen, and is taken on
    trust, as in a secure sum.
    """
    norm_max = longest(size, norm_max, noise_multiplier)
    deltas: dict[int, Flat] = {}
    refused: dict[int, str] = {}
    for node, payload in payloads.items():
        try:
            delta = unpack(payload, size)
        except DataInvalid as error:
            refused[node] = error.message
            continue
        norm = norm_of(delta)
        if not np.isfinite(norm):
            refused[node] = "Its delta is not finite."
        elif norm > _NORM_SLACK * norm_max:
            refused[node] = f"Its delta has the norm {norm:.3g}; {norm_max:.3g} is allowed."
        else:
            deltas[node] = clip(delta, norm_max)
    return Admitted(deltas, refused)


def summed(deltas: Mapping[int, Flat]) -> NDArray[np.float64]:
    """The sum in float64, in the order of the devices' numbers, shape (parameters,)."""
    total = np.zeros(len(next(iter(deltas.values()))), np.float64)
    for node in sorted(deltas):
        total += deltas[node]
    return total
