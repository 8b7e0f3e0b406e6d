"""The small operations of a pass: plain, or compiled to one kernel each.

Beside products, norms, attention and two sums a layer has five small operations, and a GPU takes
longer to start them than to compute them. Compiled they are two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Parts:
    """`rotated` and `gated`, or what does the same."""

    rotated: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    gated: Callable[[Tensor], Tensor]


def rotated(qkv: Tensor, cos: Tensor, sin: Tensor, head_size: int) -> Tensor:
    """Queries and keys turned by their positions, values as they are; all (n, (Q + 2 K) D)."""
    # (x1, x2) → (x2, x1): the signs are in `sin`, which is zero for values.
    swapped = qkv.view(len(qkv), -1, head_size).roll(head_size // 2, dims=2).view(qkv.shape)
    return torch.addcmul(qkv * cos, swapped, sin)


def gated(gate_up: Tensor) -> Tensor:
    """SwiGLU (Shazeer 2020): gate_up (n, 2 I) → (n, I)."""
    gate, up = gate_up.chunk(2, dim=1)
    return functional.silu(gate).mul_(up)


def compiled(qkv_size: int, head_size: int, inner: int, like: Tensor) -> Parts:
    """The same for tensors like `like`, of any number of rows.

    Raises whatever the compiler raises where it cannot work: here, and in no pass later.
    """
    # Two small functions are not worth a pool of processes.
    options: dict[str, Any] = {"compile_threads": 1}
    parts = Parts(torch.compile(rotated, options=options), torch.compile(gated, options=options))
    # One row has code of its own in any case.
    for rows in (2, 1):
        qkv, cos, sin = (like.new_zeros(rows, qkv_size) for _ in range(3))
        gate_up = like.new_zeros(rows, 2 * inner)
        if rows > 1:
            for tensor in (qkv, cos, sin, gate_up):
                torch._dynamo.mark_dynamic(tensor, 0)
        parts.rotated(qkv, cos, sin, head_size)
        parts.gated(gate_up)
    return parts
