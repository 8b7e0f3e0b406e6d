"""An adapter as one array: 32 tensors cost Flower a seventh more bytes than one.

numpy only: the server's side of a round loads no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataInvalid

F = TypeVar("F", np.float32, np.float64)
Flat = NDArray[np.float32]
Arrays = Mapping[str, NDArray[np.float32]]


def flatten(arrays: Arrays) -> Flat:
    """All tensors in the order of their names, shape (parameters,)."""
    parts = [np.ravel(arrays[name]) for name in sorted(arrays)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def unflatten(flat: NDArray[F], like: Arrays) -> dict[str, NDArray[F]]:
    """The tensors again, named and shaped as `like`. Raises DataInvalid for another size."""
    sizes = [int(like[name].size) for name in sorted(like)]
    if flat.shape != (sum(sizes),):
        raise DataInvalid(
            f"An adapter of {flat.size} parameters was expected to have {sum(sizes)}.",
            "Server and device must agree on rank, targets and model.",
        )
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(like[name].shape) for name, part in zip(sorted(like), parts, strict=True)
    }


def layout_digest(arrays: Arrays) -> str:
    """Names the tensors and their shapes: adapters that may be added have equal ones."""
    shapes = [(name, list(arrays[name].shape)) for name in sorted(arrays)]
    return hashlib.sha256(msgspec.json.encode(shapes)).hexdigest()
