"""How far two adapters of one base model are apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.learning.lora import PREFIX, LoraShape
from models.privacy.noise import Tensors

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class ModuleDistance:
    """Frobenius norms of what each of two adapters adds to a module's weight, and of their
    difference."""

    module: str
    first: float
    second: float
    difference: float


def compare(
    first: tuple[Tensors, LoraShape], second: tuple[Tensors, LoraShape]
) -> list[ModuleDistance]:
    """One line for each module that either adapter changes, by name."""
    modules = sorted(
        {name.removesuffix(_A) for t, _ in (first, second) for name in t if _A in name}
    )
    found = []
    for module in modules:
        one, other = _update(*first, module), _update(*second, module)
        # An adapter that leaves the module as it is adds nothing to it.
        gap = other if one is None else one if other is None else other - one
        norms = [0.0 if t is None else float(torch.linalg.norm(t)) for t in (one, other, gap)]
        found.append(ModuleDistance(module.removeprefix(PREFIX), *norms))
    return found


def _update(tensors: Tensors, shape: LoraShape, module: str) -> Tensor | None:
    """alpha / rank · B A, shape (out, in)."""
    if f"{module}{_A}" not in tensors:
        return None
    a, b = tensors[f"{module}{_A}"].double(), tensors[f"{module}{_B}"].double()
    return shape.scaling * (b @ a)
