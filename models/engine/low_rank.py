"""Many LoRA adapters (Hu et al. 2022) in one batch: each row of a pass uses its own.

The matrices of all loaded adapters lie side by side, each adapter in a slot of its own. A pass
multiplies every row with all of them, sets what belongs to other rows' adapters to zero, and
multiplies on: two small products for each fused product, whatever the number of adapters. Many
rows of one adapter, such as a prompt, need no others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.engine.linears import Addition, Linear
from models.engine.llama import Shape
from schemas.errors import ModelUnavailable

# A fused product and the Hugging Face modules whose outputs it holds, in order.
PRODUCTS: Final[Mapping[str, tuple[str, ...]]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
# The slot of rows without an adapter.
BASE: Final = -1
# Fewer rows of one adapter than this are not worth products of their own.
ALONE_ROWS_MIN: Final = 16
_NAME: Final = "base_model.model.model.layers.{layer}.{module}.lora_{matrix}.weight"


@dataclass(frozen=True, slots=True)
class Matrices:
    """One fused product's adapter matrices, over all layers; w is the sum of its parts' ranks."""

    down: Tensor  # (layers, w, in)
    up: Tensor  # (layers, w, out), the scaling included


Adapter = Mapping[str, Matrices]


def arrange(
    tensors: Mapping[str, Tensor], scaling: float, shape: Shape, dtype: torch.dtype
) -> Adapter:
    """A PEFT state dict in the order of the fused products.

    Raises ModelUnavailable for weights that do not fit the model, or are not finite.
    """
    left = dict(tensors)
    adapter = {}
    for product, modules in PRODUCTS.items():
        matrices = _product(left, shape, modules, scaling)
        if matrices is not None:
            adapter[product] = Matrices(matrices.down.to(dtype), matrices.up.to(dtype))
    if left or not adapter:
        named = ", ".join(sorted(left)[:3]) or "no tensors"
        raise _refused(f"It holds {named}, which the engine has no place for")
    for matrices in adapter.values():
        # After the conversion, which may overflow. One row's infinity would be all rows' NaN.
        if not (matrices.down.isfinite().all() and matrices.up.isfinite().all()):
            raise _refused("It holds values that are not finite")
    return adapter


@dataclass(frozen=True, slots=True)
class _Factors:
    """What rows are multiplied with, layer by layer: w columns, then the product's outputs."""

    downs: Sequence[Linear]
    ups: Sequence[Addition]

    @classmethod
    def of(cls, matrices: Matrices, columns: slice) -> _Factors:
        return cls(
            [Linear(layer[columns]) for layer in matrices.down],
            [Addition(layer[columns]) for layer in matrices.up],
        )


@dataclass(frozen=True, slots=True)
class _Stack:
    """One fused product's matrices of all slots; a slot has `width` columns."""

    matrices: Matrices  # (layers, slots · width, in or out)
    width: int
    # Of the slots up to the last one in use, and of each slot alone.
    together: _Factors
    alone: Mapping[int, _Factors]


class Stacks:
    """All loaded adapters, side by side. Slots that no running row uses may be written at any
    time, also while a pass runs."""

    def __init__(self, shape: Shape, slots: int, like: Tensor) -> None:
        self.slots = slots
        self._shape = shape
        self._like = like
        self._used = 0
        self._products: dict[str, _Stack] = {}

    def put(self, slot: int, adapter: Adapter) -> None:
        """Writes an adapter into a slot."""
        self._used = max(self._used, slot + 1)
        # Replaced as a whole, so that a pass that runs keeps what it began with.
        products = dict(self._products)
        for product in PRODUCTS:
            stack, own = products.get(product), adapter.get(product)
            if own is not None:
                products[product] = self._with(stack, slot, own)
            elif stack is not None:
                products[product] = self._without(stack, slot)
        self._products = products

    def for_runs(self, runs: Sequence[tuple[int, int]]) -> RowAdapters | None:
        """What a pass adds whose rows come in runs of (adapter slot, count); None if all are BASE.

        Rows of one slot that follow each other, such as a piece of a prompt, are multiplied with
        that adapter alone; the others with all adapters, of which all but one are masked.
        """
        spans = _spans(runs)
        if not self._products or all(span.slot == BASE for span in spans):
            return None
        parts = {
            product: [self._part(stack, span) for span in spans if span.slot != BASE]
            for product, stack in self._products.items()
        }
        whole = len(spans) == 1
        return RowAdapters(parts, whole)

    def _part(self, stack: _Stack, span: _Span) -> _Part:
        if span.slot is not None:
            return _Part(span.rows, stack.alone.get(span.slot), None)
        columns = torch.arange(self._used * stack.width, device=self._like.device)
        owners = torch.tensor(span.owners, device=self._like.device)[:, None]
        return _Part(span.rows, stack.together, columns // stack.width != owners)

    def _with(self, stack: _Stack | None, slot: int, adapter: Matrices) -> _Stack:
        width = adapter.down.shape[1]
        if stack is None or stack.width < width:
            matrices = self._widened(stack, adapter, width)
        else:
            matrices, width = stack.matrices, stack.width
        _write(matrices, slot * width, width, adapter)
        alone = dict(stack.alone) if stack is not None else {}
        alone[slot] = _Factors.of(adapter, slice(None))
        return self._ready(matrices, width, alone)

    def _without(self, stack: _Stack, slot: int) -> _Stack:
        _write(stack.matrices, slot * stack.width, stack.width, None)
        alone = {other: factors for other, factors in stack.alone.items() if other != slot}
        return self._ready(stack.matrices, stack.width, alone)

    def _ready(self, matrices: Matrices, width: int, alone: Mapping[int, _Factors]) -> _Stack:
        return _Stack(matrices, width, _Factors.of(matrices, slice(self._used * width)), alone)

    def _widened(self, stack: _Stack | None, adapter: Matrices, width: int) -> Matrices:
        layers, like = self._shape.layers, self._like
        wider = Matrices(
            like.new_zeros(layers, self.slots * width, adapter.down.shape[2]),
            like.new_zeros(layers, self.slots * width, adapter.up.shape[2]),
        )
        if stack is not None:
            for slot in range(self.slots):
                columns = slice(slot * stack.width, (slot + 1) * stack.width)
                kept = Matrices(stack.matrices.down[:, columns], stack.matrices.up[:, columns])
                _write(wider, slot * width, width, kept)
        return wider


@dataclass(frozen=True, slots=True)
class _Span:
    """Successive rows of a pass, and the slot of each."""

    rows: slice
    owners: Sequence[int]

    @property
    def slot(self) -> int | None:
        """The slot of all rows, if they share one."""
        return self.owners[0] if len(set(self.owners)) == 1 else None


@dataclass(frozen=True, slots=True)
class _Part:
    """What is added to some rows; `foreign` (rows, columns) marks other rows' adapters."""

    rows: slice
    factors: _Factors | None
    foreign: Tensor | None

    def add(self, layer: int, rows: Tensor, into: Tensor) -> Tensor:
        if self.factors is None:
            return into
        inner = self.factors.downs[layer](rows)
        if self.foreign is not None:
            # Filled, not multiplied, with zeros: another adapter's overflow must stay its own.
            inner.masked_fill_(self.foreign, 0.0)
        return self.factors.ups[layer](inner, into)


class RowAdapters:
    """See `llama.LowRank`."""

    def __init__(self, parts: Mapping[str, Sequence[_Part]], whole: bool) -> None:
        """`whole` says that there is one part, for all rows."""
        self._parts = parts
        self._whole = whole

    def add(self, layer: int, product: str, rows: Tensor, into: Tensor) -> Tensor:
        """into (n, out) plus what each row's adapter makes of rows (n, in)."""
        for part in self._parts.get(product, ()):
            if self._whole:
                return part.add(layer, rows, into)
            into[part.rows] = part.add(layer, rows[part.rows], into[part.rows])
        return into


def _spans(runs: Sequence[tuple[int, int]]) -> list[_Span]:
    """Long runs of one slot each by themselves, and between them the short ones together."""
    merged = [
        (slot, sum(count for _, count in same))
        for slot, same in groupby(runs, key=lambda run: run[0])
    ]
    least = ALONE_ROWS_MIN if len(merged) > 1 else 1
    owners: list[list[int]] = []
    for alone, group in groupby(merged, key=lambda run: run[1] >= least):
        each = [[slot] * count for slot, count in group]
        owners += each if alone else [list(chain.from_iterable(each))]
    ends = list(accumulate(map(len, owners)))
    return [
        _Span(slice(end - len(rows), end), rows) for end, rows in zip(ends, owners, strict=True)
    ]


def _write(stack: Matrices, start: int, width: int, adapter: Matrices | None) -> None:
    used = 0 if adapter is None else adapter.down.shape[1]
    if adapter is not None:
        stack.down[:, start : start + used] = adapter.down
        stack.up[:, start : start + used] = adapter.up
    stack.down[:, start + used : start + width] = 0
    stack.up[:, start + used : start + width] = 0


def _product(
    left: dict[str, Tensor], shape: Shape, modules: Sequence[str], scaling: float
) -> Matrices | None:
    """Takes one product's tensors out of `left`; None if there are none."""
    in_size, out_sizes = _sizes(shape, modules)
    downs: list[Tensor] = []
    ups: list[Tensor] = []
    first = 0
    for module, out_size in zip(modules, out_sizes, strict=True):
        pairs = [_pair(left, layer, module) for layer in range(shape.layers)]
        if any(pair is not None for pair in pairs):
            down, up = _stacked(pairs, module, in_size, out_size)
            downs.append(down)
            # What one module adds falls into its own columns of the fused product.
            ups.append(functional.pad(up * scaling, (first, sum(out_sizes) - first - out_size)))
        first += out_size
    return Matrices(torch.cat(downs, 1), torch.cat(ups, 1)) if downs else None


def _pair(left: dict[str, Tensor], layer: int, module: str) -> tuple[Tensor, Tensor] | None:
    a = left.pop(_NAME.format(layer=layer, module=module, matrix="A"), None)
    b = left.pop(_NAME.format(layer=layer, module=module, matrix="B"), None)
    if a is None and b is None:
        return None
    if a is None or b is None:
        raise _refused(f"Layer {layer} has only one of the two matrices of {module}")
    return a, b


def _stacked(
    pairs: Sequence[tuple[Tensor, Tensor] | None], module: str, in_size: int, out_size: int
) -> tuple[Tensor, Tensor]:
    """Down (layers, rank, in) and up (layers, rank, out) of one module."""
    present = [pair for pair in pairs if pair is not None]
    rank = present[0][0].shape[0]
    for a, b in present:
        if a.shape != (rank, in_size) or b.shape != (out_size, rank):
            raise _refused(
                f"{module} has matrices of {tuple(a.shape)} and {tuple(b.shape)}, "
                f"not {(rank, in_size)} and {(out_size, rank)}"
            )
    empty = (torch.zeros(rank, in_size), torch.zeros(out_size, rank))
    whole = [empty if pair is None else pair for pair in pairs]
    return (
        torch.stack([a.float() for a, _ in whole]),
        torch.stack([b.float().T for _, b in whole]),
    )


def _sizes(shape: Shape, modules: Sequence[str]) -> tuple[int, list[int]]:
    key_size = shape.kv_size // 2
    sizes = {
        "q_proj": (shape.hidden, shape.query_size),
        "k_proj": (shape.hidden, key_size),
        "v_proj": (shape.hidden, key_size),
        "o_proj": (shape.query_size, shape.hidden),
        "gate_proj": (shape.hidden, shape.inner),
        "up_proj": (shape.hidden, shape.inner),
        "down_proj": (shape.inner, shape.hidden),
    }
    found = [sizes[module.partition(".")[2]] for module in modules]
    return found[0][0], [out_size for _, out_size in found]


def _refused(reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The adapter does not fit the model. {reason}.",
        "Train a plain LoRA adapter of this model's attention and MLP layers.",
    )
