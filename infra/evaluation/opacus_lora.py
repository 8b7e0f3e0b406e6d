"""LoRA as modules of their own, which is what Opacus' hooks see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from models.learning.lora import LoraShape, names_of, target_modules
from models.privacy.noise import Tensors


class LoraLinear(nn.Module):
    """A frozen linear layer with trainable matrices beside it."""

    def __init__(self, base: nn.Linear, a: Tensor, b: Tensor, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(a.shape[1], a.shape[0], bias=False)
        self.up = nn.Linear(b.shape[1], b.shape[0], bias=False)
        self.down.weight.data.copy_(a)
        self.up.weight.data.copy_(b)
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        update = self.up(self.down(x.float())) * self.scaling
        added: Tensor = self.base(x) + update.to(x.dtype)
        return added


@contextmanager
def lora_modules(model: PreTrainedModel, adapter: Tensors, shape: LoraShape) -> Iterator[Tensors]:
    """Puts them in place of the target layers, with the adapter's values, and takes them out again.

    The parameters, by the adapter's names, are trained inside; the adapter is not changed.
    """
    model.requires_grad_(False)
    found = target_modules(model, shape)
    parameters: Tensors = {}
    for name, module in found.items():
        a_name, b_name = names_of(name)
        lora = LoraLinear(module, adapter[a_name], adapter[b_name], shape.scaling)
        lora.to(module.weight.device)
        _put(model, name, lora)
        parameters |= {a_name: lora.down.weight, b_name: lora.up.weight}
    try:
        yield parameters
    finally:
        for name, module in found.items():
            _put(model, name, module)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
