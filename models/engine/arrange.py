"""A PEFT adapter in the order of the engine's fused products, checked against the model."""

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
_NAME: Final = "base_model.model.model.layers.{layer}.{module}.lora_{matrix}.weight"


@dataclass(frozen=True, slots=True)
class Matrices:
    """One fused product's adapter matrices, over all layers; w is the sum of its parts' ranks."""

    down: Tensor  # (layers, w, in)
    up: Tensor  # (layers, w, out), the scaling included

    def to(self, device: torch.device) -> Matrices:
        """The same on a device; these themselves if they are there."""
        return Matrices(self.down.to(device), self.up.to(device))


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
    first_a, first_b = present[0]
    empty = (torch.zeros_like(first_a), torch.zeros_like(first_b))
    whole = [empty if pair is None else pair for pair in pairs]
    # Few operations for all layers: each one may keep the engine's thread from Python's lock.
    return (
        torch.stack([a for a, _ in whole]).float(),
        torch.stack([b for _, b in whole]).float().transpose(1, 2),
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
