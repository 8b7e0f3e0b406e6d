"""A few numbers that stand for an embedding where only distances between means are asked for.

A random projection keeps distances in expectation (Johnson & Lindenstrauss, 1984). It is the same
one for ever and everywhere, for sketches of different days are compared.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

SKETCH_NUMBERS: Final = 16
_SEED: Final = 16
_DIGITS: Final = 4  # of a number around 0.25: enough, and short in JSON


def sketches(embeddings: np.ndarray) -> list[list[float]]:
    """Sketches of (n, dim) embeddings of length 1: n lists of 16 numbers, each of variance 1/16."""
    projected = embeddings @ _projection(embeddings.shape[1])
    return np.round(projected.astype(np.float64), _DIGITS).tolist()  # type: ignore[no-any-return]


@cache
def _projection(dim: int) -> np.ndarray:
    """(dim, 16). The old generator's numbers are promised never to change."""
    drawn = np.random.RandomState(_SEED).standard_normal((dim, SKETCH_NUMBERS))
    return np.asarray(drawn / np.sqrt(SKETCH_NUMBERS), dtype=np.float32)
