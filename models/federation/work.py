"""What the server asks of a device in one round."""

from __future__ import annotations

from typing import Literal

import msgspec

from models.federation.deltas import Compression


class LocalWork(msgspec.Struct, frozen=True, kw_only=True):
    """Training of one round on one device; all of it is public.

    `layout` is the digest of the adapter's names and shapes. `proximal` is FedProx' mu: how hard
    local weights are pulled back to the server's (Li et al. 2020); 0 for the other strategies.
    The delta is cut to the L2 norm `norm_max`; `noise_multiplier` is the standard deviation, in
    such norms, of the noise that the device adds to each value of it.
    """

    round_id: str
    layout: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    norm_max: float
    noise_multiplier: float = 0.0
    epochs: int = 1
    batch_rows: int = 8
    examples_max: int = 256
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    proximal: float = 0.0
    tokens_max: int = 512
    compression: Compression = "none"
