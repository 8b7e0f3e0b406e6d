"""Matrix products with fixed weights, each in the layout that its device multiplies fastest.

A step of a small model on a CPU is spent reading weights. Packed once for oneDNN, bfloat16 weights
are multiplied in 0.6 of the time that `F.linear` takes for 8 rows and more, with the same result;
for a row or two, weights of 4 bits are read in 0.4 of the time. Where float32 is the faster format
(models/precision.py), weights take 0.4 to 0.6 of the time for 8 to 32 rows when packed for MKL,
which is the faster one on Intel's processors, or for oneDNN on others; 4-bit ones with rows rounded
to bfloat16 take less than that for few rows (docs/LOG.md).
Activations are never quantised: their scales would depend on what else is in the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Weights of a group share a scale and a minimum; the packaged model's own file uses 32 as well.
GROUP_SIZE = 32
LEVELS_4BIT = 15
# MKL is told for how many rows it packs. What it makes for 128 serves any number, and is the
# fastest or near it from 1 to 500.
ROWS_PACKED_FOR = 128


@dataclass(frozen=True, slots=True)
class Packed4Bit:
    """(N, K) weights of 4 bits, w = (q - 8) · scale + zero for each group of 32 along K.

    Rows are rounded to bfloat16, as scales and zeros are: the one format with a fast kernel.
    """

    weights: Tensor
    scales_and_zeros: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.to(torch.bfloat16), self.weights, GROUP_SIZE, self.scales_and_zeros
        )
        return product.to(rows.dtype)


class Linear:
    """x (n, K) → x · weightᵀ + bias, (n, N)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, few_rows_4bit: bool = False):
        self._wide = _wide(weight, bias)
        self._narrow = pack_4bit(weight) if few_rows_4bit else None
        # 0 without them.
        self.narrow_rows_max = rows_4bit_max(weight.dtype) if self._narrow else 0
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        if self._narrow is None or len(rows) > self.narrow_rows_max:
            return self._wide(rows)
        product = self._narrow(rows)
        return product if self._bias is None else product + self._bias


def can_pack_onednn(weight: Tensor) -> bool:
    """Whether this processor multiplies weights of such a format fastest when packed for oneDNN:
    bfloat16, and float32 where MKL does not know it."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.float32:
        return _has("avx2") and not _is_intel()
    return weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_pack_mkl(weight: Tensor) -> bool:
    """Whether float32 weights can be packed for MKL here."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _mkl_packs()


def rows_4bit_max(dtype: torch.dtype) -> int:
    """With more rows than this, unpacking 4-bit weights takes longer than reading wider ones."""
    return 8 if dtype == torch.float32 and _has("avx512_f") else 4


def can_pack_4bit(weight: Tensor) -> bool:
    """Whether the 4-bit product exists for such a weight, and is the faster one for few rows."""
    out_size, in_size = weight.shape
    fast = can_pack_onednn(weight) or (can_pack_mkl(weight) and _has("avx512_f"))
    return fast and in_size % GROUP_SIZE == 0 and out_size % GROUP_SIZE == 0


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
        pairs.to(torch.bfloat16).contiguous(),
    )


def _has(instructions: str) -> bool:
    return bool(torch.cpu.get_capabilities().get(instructions))


def _is_intel() -> bool:
    return "Intel" in str(torch.cpu.get_capabilities().get("cpu_name"))


def _wide(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    if can_pack_onednn(weight):
        return _packed_onednn(weight, bias)
    if can_pack_mkl(weight):
        return _packed_mkl(weight, bias)
    return lambda rows: functional.linear(rows, weight, bias)


def _packed_onednn(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def product(rows: Tensor) -> Tensor:
        # "none": no activation function after the product.
        found: Tensor = multiply(rows, packed, bias, "none", [], "")
        return found

    def padded(rows: Tensor) -> Tensor:
        count = len(rows)
        lacking = padded_rows(count) - count
        return (
            product(functional.pad(rows, (0, 0, 0, lacking)))[:count] if lacking else product(rows)
        )

    return padded if weight.dtype == torch.float32 else product


def padded_rows(count: int) -> int:
    """To how many rows a product of `count` float32 rows is filled up with zeros.

    For each number of rows that comes oneDNN builds code, which takes 2 ms and 1 MB and stays: so
    few numbers come, at the cost of an eighth more rows at most.
    """
    if count <= 8:
        return count
    step = 2 if count <= 32 else 4 if count <= 64 else 8 if count <= 128 else 16
    return -(-count // step) * step


def _packed_mkl(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, ROWS_PACKED_FOR)
    multiply = torch.ops.mkl._mkl_linear.default
    # Only its shape is read where the number of rows is the one said, so the weights themselves
    # need not stay in memory; were it read, all would be NaN.
    shape = weight.new_full((), torch.nan).expand(weight.shape)
    in_size = weight.shape[1]

    def product(rows: Tensor) -> Tensor:
        # MKL itself would read on behind rows that are too short.
        if rows.ndim != 2 or rows.shape[1] != in_size:
            raise ValueError(f"rows of shape {tuple(rows.shape)} instead of (n, {in_size})")
        found: Tensor = multiply(rows, packed, shape, bias, len(rows))
        return found

    return product


@functools.cache
def _mkl_packs() -> bool:
    """Whether MKL is there, and what it packs for one number of rows serves others too: it does in
    every version tried, but its manual does not promise it."""
    if not torch.backends.mkl.is_available() or not hasattr(torch.ops.mkl, "_mkl_linear"):
        return False
    weight = torch.arange(320.0 * 1_600).sin().view(320, 1_600)
    packed = _packed_mkl(weight, None)
    return all(
        torch.allclose(packed(rows), functional.linear(rows, weight), atol=1e-3)
        for rows in (weight[:count] for count in (1, 2, 7, ROWS_PACKED_FOR, 300))
    )
