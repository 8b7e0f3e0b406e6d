"""Many LoRA adapters (Hu et al. 2022) in one batch: each row of a pass uses its own.

The matrices of all loaded adapters lie side by side, each adapter in a slot of its own. A pass
multiplies every row with all of them, sets what belongs to other rows' adapters to zero, and
multiplies on: two small products for each fused product, whatever the number of adapters. Many
rows of one adapter, such as a prompt, need no others'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, groupby
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.background import Breathe
from models.engine.arrange import PRODUCTS, Adapter, Matrices
from models.engine.linears import Linear, can_pack_onednn
from models.engine.llama import Shape

# The slot of rows without an adapter.
BASE: Final = -1
# More rows of one adapter than this are multiplied with that adapter alone, and without packing,
# which would take longer than it saves: see docs/LOG.md.
FEW_ROWS_MAX: Final = 256
# Where nothing is packed, so that columns of other adapters cost what they cost in a wide product.
FEW_ROWS_UNPACKED_MAX: Final = 32


class _Up:
    """Adds inner (n, w) times one layer's up (w, out) to rows (n, out)."""

    def __init__(self, up: Tensor, pack: bool) -> None:
        self._up = up
        self._packed = Linear(up.t().contiguous()) if pack else None

    def __call__(self, inner: Tensor, into: Tensor) -> None:
        if self._packed is not None and len(inner) <= FEW_ROWS_MAX:
            into.add_(self._packed(inner))
        else:
            # In place: for the rows of a prompt a copy would take longer than the product.
            into.addmm_(inner, self._up)


@dataclass(frozen=True, slots=True)
class _Factors:
    """What rows are multiplied with, layer by layer: w columns, then the product's outputs."""

    downs: Sequence[Callable[[Tensor], Tensor]]
    ups: Sequence[_Up]

    @classmethod
    def for_few_rows(cls, matrices: Matrices, columns: slice, breathe: Breathe) -> _Factors:
        """So laid out that few rows are multiplied fastest. Packing float32 gains nothing with so
        few columns, and would make a swap ten times as long."""
        own = Matrices(matrices.down[:, columns], matrices.up[:, columns])
        if not _packs(own.up):
            return cls.plain(own)
        downs, ups = [], []
        for down, up in zip(own.down, own.up, strict=True):
            downs.append(Linear(down))
            ups.append(_Up(up, pack=True))
            breathe()
        return cls(downs, ups)

    @classmethod
    def plain(cls, matrices: Matrices) -> _Factors:
        downs = [partial(functional.linear, weight=down) for down in matrices.down]
        return cls(downs, [_Up(up, pack=False) for up in matrices.up])


@dataclass(frozen=True, slots=True)
class _Stack:
    """One fused product's matrices of all slots; a slot has `width` columns."""

    matrices: Matrices  # (layers, slots · width, in or out)
    width: int
    # Of the `used` slots up to the last one in use, and of each slot alone.
    used: int
    together: _Factors
    alone: Mapping[int, _Factors]

    def foreign(self, owners: Tensor) -> Tensor:
        """Which of the columns are not of the slots that own the rows (n,): (n, used · width)."""
        columns = torch.arange(self.used * self.width, device=owners.device)
        return columns // self.width != owners[:, None]


class Stacks:
    """All loaded adapters, side by side. Slots that no running row uses may be written at any
    time, also while a pass runs."""

    def __init__(self, shape: Shape, slots: int, like: Tensor) -> None:
        self.slots = slots
        packs = _packs(like) or like.device.type != "cpu"
        self._few_rows_max = FEW_ROWS_MAX if packs else FEW_ROWS_UNPACKED_MAX
        self._shape = shape
        self._like = like
        self._used = 0
        self._products: dict[str, _Stack] = {}

    def put(self, slot: int, adapter: Adapter, breathe: Breathe = lambda: None) -> None:
        """Writes an adapter into a slot. Calls `breathe` between pieces of the work, for those who
        must not keep others waiting."""
        self._used = max(self._used, slot + 1)
        # Replaced as a whole, so that a pass that runs keeps what it began with.
        products = dict(self._products)
        for product in PRODUCTS:
            stack, own = products.get(product), adapter.get(product)
            if own is not None:
                products[product] = self._with(stack, slot, own.to(self._like.device), breathe)
            elif stack is not None:
                products[product] = self._without(stack, slot, breathe)
        self._products = products

    def for_runs(self, runs: Sequence[tuple[int, int]]) -> RowAdapters | None:
        """What a pass adds whose rows come in runs of (adapter slot, count); None if all are BASE.

        Many rows of one slot that follow each other, such as a piece of a prompt, are multiplied
        with that adapter alone; the others with all adapters, of which all but one are masked.
        """
        spans, products = _spans(runs, self._few_rows_max), self._products
        adapted = [span for span in spans if set(span.owners) != {BASE}]
        if not products or not adapted:
            return None
        parts = {
            product: [self._part(stack, span) for span in adapted]
            for product, stack in products.items()
        }
        return RowAdapters(parts)

    def for_rows(self, owners: Tensor) -> RowAdapters:
        """The same for rows (n,) of these adapter slots, where Python must not look at them."""
        every = slice(None)
        return RowAdapters(
            {
                product: [_Part(every, stack.together, stack.foreign(owners))]
                for product, stack in self._products.items()
            }
        )

    @property
    def layout(self) -> tuple[tuple[int, int], ...]:
        """Another one when `for_rows` would use other addresses: not when a slot is written.

        Widths and used slots never fall, and matrices move when they get wider only.
        """
        return tuple((stack.width, stack.used) for stack in self._products.values())

    def _part(self, stack: _Stack, span: _Span) -> _Part:
        if len(span.owners) > self._few_rows_max and len(set(span.owners)) == 1:
            return _Part(span.rows, stack.alone.get(span.owners[0]), None)
        owners = torch.tensor(span.owners, device=self._like.device)
        return _Part(span.rows, stack.together, stack.foreign(owners))

    def _with(self, stack: _Stack | None, slot: int, adapter: Matrices, breathe: Breathe) -> _Stack:
        width = adapter.down.shape[1]
        if stack is None or stack.width < width:
            matrices = self._widened(stack, adapter, width)
        else:
            matrices, width = stack.matrices, stack.width
        _write(matrices, slot * width, width, adapter)
        alone = dict(stack.alone) if stack is not None else {}
        alone[slot] = _Factors.plain(adapter)
        return self._ready(matrices, width, alone, breathe)

    def _without(self, stack: _Stack, slot: int, breathe: Breathe) -> _Stack:
        _write(stack.matrices, slot * stack.width, stack.width, None)
        alone = {other: factors for other, factors in stack.alone.items() if other != slot}
        return self._ready(stack.matrices, stack.width, alone, breathe)

    def _ready(
        self, matrices: Matrices, width: int, alone: Mapping[int, _Factors], breathe: Breathe
    ) -> _Stack:
        together = _Factors.for_few_rows(matrices, slice(self._used * width), breathe)
        return _Stack(matrices, width, self._used, together, alone)

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


@dataclass(frozen=True, slots=True)
class _Part:
    """What is added to some rows; `foreign` (rows, columns) marks other rows' adapters."""

    rows: slice
    factors: _Factors | None
    foreign: Tensor | None

    def add(self, layer: int, rows: Tensor, into: Tensor) -> None:
        if self.factors is None:
            return
        inner = self.factors.downs[layer](rows)
        if self.foreign is not None:
            # Filled, not multiplied, with zeros: another adapter's overflow must stay its own.
            inner.masked_fill_(self.foreign, 0.0)
        self.factors.ups[layer](inner, into)


class RowAdapters:
    """See `llama.LowRank`."""

    def __init__(self, parts: Mapping[str, Sequence[_Part]]) -> None:
        self._parts = parts

    def add(self, layer: int, product: str, rows: Tensor, into: Tensor) -> None:
        """Adds to into (n, out) what each row's adapter makes of rows (n, in)."""
        for part in self._parts.get(product, ()):
            part.add(layer, rows[part.rows], into[part.rows])


def _packs(matrix: Tensor) -> bool:
    return matrix.dtype == torch.bfloat16 and can_pack_onednn(matrix)


def _spans(runs: Sequence[tuple[int, int]], few_rows_max: int) -> list[_Span]:
    """Long runs of one slot each by themselves, and between them the short ones together."""
    merged = [
        (slot, sum(count for _, count in same))
        for slot, same in groupby(runs, key=lambda run: run[0])
    ]
    owners: list[list[int]] = []
    for alone, group in groupby(merged, key=lambda run: run[1] > few_rows_max):
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
