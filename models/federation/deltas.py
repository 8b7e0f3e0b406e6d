"""What a device sends: how far its training moved the adapter, cut to a norm, in few bytes.

Packed form: one byte for the kind, then
- `none`: float32;
- `int8`: a float32 scale for each block of 256 values, then an int8 for each value (Dettmers et al.
  2022, block-wise quantization);
- `topk`: the count as uint32, the positions as uint32, the values as float32 (Aji & Heafield 2017).
"""

from __future__ import annotations

import math
import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.federation.layout import Flat
from models.privacy.randomness import NoiseKey
from schemas.errors import DataInvalid

Compression = Literal["none", "int8", "topk"]

COMPRESSIONS: tuple[Compression, ...] = ("none", "int8", "topk")
_BLOCK = 256
_COUNT = struct.Struct("<I")
# Of all values, those that `topk` keeps.
TOPK_SHARE = 0.1


def norm_of(delta: Flat) -> float:
    """The L2 norm, computed in float64; not finite where a value is not."""
    return float(np.linalg.norm(delta.astype(np.float64)))


def clip(delta: Flat, norm_max: float) -> Flat:
    """`delta`, shortened to the norm `norm_max` where it is longer."""
    norm = norm_of(delta)
    if norm <= norm_max:
        return delta
    # A little below, as the product is rounded to float32.
    return (delta * (norm_max * (1.0 - 1e-6) / norm)).astype(np.float32)


def noised(delta: Flat, scale: float) -> Flat:
    """`delta` with noise of the standard deviation `scale`, which nobody can draw again."""
    noise = NoiseKey.generate().normals(b"device", len(delta), hardened=True)
    return (delta + scale * noise).astype(np.float32)


def longest(size: int, norm_max: float, noise_multiplier: float) -> float:
    """The norm of what an honest device sends, `size` values cut to `norm_max` and noised.

    Noise alone is longer than sqrt(size) + 6 of its standard deviations with a chance of exp(-18)
    at most (Boucheron, Lugosi & Massart 2013, theorem 5.6).
    """
    return norm_max * (1.0 + noise_multiplier * (math.sqrt(size) + 6.0))


def pack(delta: Flat, compression: Compression) -> bytes:
    """The bytes of `delta`; `int8` keeps a quarter of them, `topk` a fifth."""
    kind = bytes([COMPRESSIONS.index(compression)])
    if compression == "int8":
        return kind + _pack_int8(delta)
    if compression == "topk":
        return kind + _pack_topk(delta)
    return kind + delta.astype("<f4").tobytes()


def unpack(payload: bytes, size: int) -> Flat:
    """A delta of `size` values. Raises DataInvalid for what `pack` cannot have written."""
    try:
        compression = COMPRESSIONS[payload[0]]
        body = memoryview(payload)[1:]
        if compression == "int8":
            found = _unpack_int8(body, size)
        elif compression == "topk":
            found = _unpack_topk(body, size)
        else:
            found = np.frombuffer(body, "<f4")
    except (IndexError, ValueError, struct.error) as error:
        raise _malformed(str(error)) from error
    if found.shape != (size,):
        raise _malformed(f"{found.size} values instead of {size}")
    return found.astype(np.float32, copy=False)


def _pack_int8(delta: Flat) -> bytes:
    blocks = np.pad(delta, (0, -len(delta) % _BLOCK)).reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127.0
    steps = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0.0)
    values = np.rint(steps).astype(np.int8).ravel()[: len(delta)]
    packed: bytes = scales.astype("<f4").tobytes() + values.tobytes()
    return packed


def _unpack_int8(body: memoryview, size: int) -> Flat:
    count = -(-size // _BLOCK)
    scales = np.frombuffer(body, "<f4", count)
    values = np.frombuffer(body, np.int8, offset=4 * count)
    found: Flat = values.astype(np.float32) * np.repeat(scales, _BLOCK)[: len(values)]
    return found


def _pack_topk(delta: Flat) -> bytes:
    count = max(1, round(TOPK_SHARE * len(delta)))
    kept = np.sort(np.argpartition(np.abs(delta), -count)[-count:])
    return _COUNT.pack(count) + kept.astype("<u4").tobytes() + delta[kept].astype("<f4").tobytes()


def _unpack_topk(body: memoryview, size: int) -> Flat:
    (count,) = _COUNT.unpack_from(body)
    positions: NDArray[np.uint32] = np.frombuffer(body, "<u4", count, _COUNT.size)
    values = np.frombuffer(body, "<f4", count, _COUNT.size + 4 * count)
    if len(body) != _COUNT.size + 8 * count or (count and int(positions.max()) >= size):
        raise ValueError("positions beyond the end")
    found = np.zeros(size, np.float32)
    found[positions] = values
    return found


def _malformed(what: str) -> DataInvalid:
    return DataInvalid(
        f"A device sent a delta that cannot be read: {what}.",
        "Device and server must run the same version of Headwater.",
    )
