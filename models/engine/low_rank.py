"""Many LoRA adapters (Hu et al. 2022) in one batch: each row of a pass uses its own.

The matrices of all loaded adapters lie side by side, each adapter in a slot of its own. A pass
multiplies every row with all of them, sets what belongs to other rows' adapters to zero, and
multiplies on: two small products for each fused product, whatever the number of adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

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


class Stacks:
    """All loaded adapters, side by side. Slots that no running row uses may be written at any
    time, also while a pass runs."""

    def __init__(self, shape: Shape, slots: int, like: Tensor) -> None:
        self.slots = slots
        self._shape = shape
        self._like = like
        self._products: dict[str, Matrices] = {}  # (layers, slots · width, in or out)

    def put(self, slot: int, adapter: Adapter) -> None:
        """Writes an adapter into a slot."""
        # Replaced as a whole, so that a pass that runs keeps what it began with.
        products = dict(self._products)
        for product in PRODUCTS:
            self._put(products, product, slot, adapter.get(product))
        self._products = products

    def for_rows(self, slots: Sequence[int]) -> RowAdapters | None:
        """What a pass whose row i uses the adapter in slot slots[i] adds; None if all are BASE."""
        highest = max(slots, default=BASE)
        if highest == BASE or not self._products:
            return None
        owners = torch.tensor(slots, device=self._like.device)[:, None]
        parts = {}
        for product, stack in self._products.items():
            width = stack.down.shape[1] // self.slots
            columns = (highest + 1) * width
            foreign = torch.arange(columns, device=owners.device) // width != owners
            parts[product] = (stack.down[:, :columns], stack.up[:, :columns], foreign)
        return RowAdapters(parts)

    def _put(
        self, products: dict[str, Matrices], product: str, slot: int, adapter: Matrices | None
    ) -> None:
        stack = products.get(product)
        if adapter is None:
            if stack is not None:
                width = stack.down.shape[1] // self.slots
                _write(stack, slot * width, width, None)
            return
        needed = adapter.down.shape[1]
        if stack is None or stack.down.shape[1] < needed * self.slots:
            stack = products[product] = self._widened(stack, adapter, needed)
        width = stack.down.shape[1] // self.slots
        _write(stack, slot * width, width, adapter)

    def _widened(self, stack: Matrices | None, adapter: Matrices, width: int) -> Matrices:
        layers, like = self._shape.layers, self._like
        wider = Matrices(
            like.new_zeros(layers, self.slots * width, adapter.down.shape[2]),
            like.new_zeros(layers, self.slots * width, adapter.up.shape[2]),
        )
        if stack is not None:
            old = stack.down.shape[1] // self.slots
            for slot in range(self.slots):
                columns = slice(slot * old, (slot + 1) * old)
                kept = Matrices(stack.down[:, columns], stack.up[:, columns])
                _write(wider, slot * width, width, kept)
        return wider


class RowAdapters:
    """See `llama.LowRank`."""

    def __init__(self, parts: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> None:
        self._parts = parts

    def add(self, layer: int, product: str, rows: Tensor, into: Tensor) -> Tensor:
        """into (n, out) plus what each row's adapter makes of rows (n, in)."""
        part = self._parts.get(product)
        if part is None:
            return into
        down, up, foreign = part
        # Filled, not multiplied, with zeros: another adapter's overflow must stay its own.
        inner = functional.linear(rows, down[layer]).masked_fill_(foreign, 0.0)
        return torch.addmm(into, inner, up[layer])


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
