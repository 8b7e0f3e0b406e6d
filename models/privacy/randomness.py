"""Gaussian numbers that can be drawn again by whoever has the key, and guessed by nobody else.

The generator is SHAKE-128 (FIPS 202) over the key and a label: a pseudorandom function whose output
is as long as it is needed. A label is used for one purpose, so no counter has to be stored, and a
replay after a crash draws the same numbers. torch.Generator and numpy's are fast but not
cryptographic: from a released adapter their state might be worked out, and with it all noise.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.secret_file import SECRET_BYTES, open_secret
from schemas.errors import SettingsInvalid

# Draws that a hardened number is the sum of (2n with n = 2 in Holohan & Braghin 2021, section 5.1).
_HARDENED_DRAWS = 4


class NoiseKey:
    """A secret of 256 bits. Whoever learns it can take the noise off everything released."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise SettingsInvalid(
                f"A noise key has {SECRET_BYTES} bytes, not {len(secret)}.",
                "Restore the key file of this adapter from its backup.",
            )
        self._secret = secret

    def __repr__(self) -> str:
        return f"NoiseKey({self.commitment[:8]}…)"

    def __reduce__(self) -> str:
        raise TypeError("a noise key is not pickled")

    @classmethod
    def generate(cls) -> NoiseKey:
        """A new key from the operating system's secure source."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def open(cls, path: Path) -> NoiseKey:
        """The key in `path`, made there (readable by its owner alone) where there is none.

        Raises SettingsInvalid for a file that others may read or that holds no key.
        """
        return cls(open_secret(path, "noise key"))

    @property
    def commitment(self) -> str:
        """Names the key without telling it; 64 hexadecimal digits."""
        return hashlib.sha256(b"headwater noise key commitment" + self._secret).hexdigest()

    def normals(self, label: bytes, count: int, hardened: bool) -> NDArray[np.float64]:
        """`count` standard normal numbers for this label, shape (count,).

        Hardened: each is half the sum of four, so that the exact digits of a released number do
        not tell which numbers the generator can make (Mironov 2012). An attack on n = 2 takes
        2^159 steps (Holohan & Braghin 2021), as in Opacus' secure mode.
        """
        if not hardened:
            return self._box_muller(label, count)
        drawn = self._box_muller(label, _HARDENED_DRAWS * count).reshape(_HARDENED_DRAWS, count)
        summed: NDArray[np.float64] = drawn.sum(axis=0) / math.sqrt(_HARDENED_DRAWS)
        return summed

    def _box_muller(self, label: bytes, count: int) -> NDArray[np.float64]:
        half = -(-count // 2)
        radius, angle = self._uniforms(label, 2 * half).reshape(2, half)
        radius = np.sqrt(-2.0 * np.log(radius))
        angle = 2.0 * np.pi * angle
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]

    def _uniforms(self, label: bytes, count: int) -> NDArray[np.float64]:
        """Multiples of 2^-53 in (0, 1]. The key is of fixed length, so no two inputs collide."""
        stream = hashlib.shake_128(self._secret + label).digest(8 * count)
        words = np.frombuffer(stream, dtype="<u8") >> np.uint64(11)
        return (words.astype(np.float64) + 1.0) * 2.0**-53


def label_of(purpose: str, step: int, name: str, context: bytes) -> bytes:
    """One label for each purpose, step, tensor and context; parts cannot run into each other."""
    parts = (purpose.encode(), step.to_bytes(8, "little"), name.encode(), context)
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
