"""Matrix products with fixed weights, each in the layout that its device multiplies fastest.

A step of a small model on a CPU is spent reading weights. Packed once for oneDNN, bfloat16 weights
are multiplied in 0.6 of the time that `F.linear` takes for 8 rows and more, with the same result;
for a row or two, weights of 4 bits are read in 0.4 of the time (docs/benchmarks). Activations are
never quantised: their scales would depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Weights of a group share a scale and a minimum; the packaged model's own file uses 32 as well.
GROUP_SIZE = 32
LEVELS_4BIT = 15
# With more rows than this, unpacking 4-bit weights takes longer than reading wider ones.
ROWS_4BIT_MAX = 4


@dataclass(frozen=True, slots=True)
class Packed4Bit:
    """(N, K) weights of 4 bits, w = (q - 8) · scale + zero for each group of 32 along K."""

    weights: Tensor
    scales_and_zeros: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.weights, GROUP_SIZE, self.scales_and_zeros
        )
        return product


class Linear:
    """x (n, K) → x · weightᵀ + bias, (n, N)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, few_rows_4bit: bool = False):
        self._wide = _wide(weight, bias)
        self._narrow = pack_4bit(weight) if few_rows_4bit else None
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        if self._narrow is None or rows.shape[0] > ROWS_4BIT_MAX:
            return self._wide(rows)
        product = self._narrow(rows)
        return product if self._bias is None else product + self._bias


def can_pack(weight: Tensor) -> bool:
    """Whether this processor multiplies packed bfloat16 faster than unpacked."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def can_pack_4bit(weight: Tensor) -> bool:
    """Whether the 4-bit product exists for such a weight."""
    out_size, in_size = weight.shape
    return can_pack(weight) and in_size % GROUP_SIZE == 0 and out_size % GROUP_SIZE == 0


def pack_4bit(weight: Tensor) -> Packed4Bit | None:
    """Rounds to 16 evenly spaced levels from each group's least to its greatest weight.

    Weights that were on such levels before (GGUF's Q4_1 with groups of 32) lose nothing but the
    rounding of scale and zero to bfloat16.
    """
    if not can_pack_4bit(weight):
        return None
    groups = weight.float().unflatten(1, (-1, GROUP_SIZE))  # (N, K / 32, 32)
    least, greatest = groups.aminmax(dim=-1, keepdim=True)
    scale = ((greatest - least) / LEVELS_4BIT).clamp(min=torch.finfo(torch.float32).tiny)
    levels = ((groups - least) / scale).round().clamp(0, LEVELS_4BIT).to(torch.int32).flatten(1)
    # The kernel counts levels from -8.
    zero = least + 8 * scale
    pairs = torch.cat([scale, zero], dim=-1).transpose(0, 1)  # (K / 32, N, 2)
    return Packed4Bit(
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1),
        pairs.to(weight.dtype).contiguous(),
    )


def _wide(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    if not can_pack(weight):
        return lambda rows: functional.linear(rows, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    # "none": no activation function after the product.
    return lambda rows: multiply(rows, packed, bias, "none", [], "")
