"""A LoRA adapter: two small matrices beside each of some linear layers (Hu et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.privacy.noise import Tensors
from schemas.errors import SettingsInvalid

# Which of its matrices a learner changes. With A as it began, noise has fewer numbers to fall on,
# and A's does not multiply B's (FFA-LoRA, Sun et al. 2024).
Trained = Literal["both", "b"]

# What PEFT puts before the names of the base model's own modules.
PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class LoraShape:
    """`targets` are last parts of module names; the update is alpha / rank * B A x."""

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


def target_modules(model: nn.Module, shape: LoraShape) -> dict[str, nn.Linear]:
    """The linear layers that get an adapter, by full name. Raises SettingsInvalid for none."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in shape.targets
    }
    if not found:
        raise SettingsInvalid(
            f"The model has no linear layer called {', '.join(shape.targets)}.",
            "Name layers that it has, such as q_proj.",
        )
    return found


def names_of(module_name: str) -> tuple[str, str]:
    """The names of A and B in a PEFT file."""
    stem = f"{PREFIX}{module_name}"
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def trained_of(adapter: Tensors, trained: Trained) -> Tensors:
    """Those of an adapter's matrices that are changed; the very same tensors."""
    if trained == "both":
        return dict(adapter)
    return {name: tensor for name, tensor in adapter.items() if name.endswith(".lora_B.weight")}


def new_adapter(model: nn.Module, shape: LoraShape, seed: int = 0) -> Tensors:
    """A: (rank, in), uniform as in PEFT; B: (out, rank), zero, so that it changes nothing yet.

    float32 on the model's device. The seed is no secret: A is public before the first user comes.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, module in target_modules(model, shape).items():
        a_name, b_name = names_of(name)
        bound = 1.0 / math.sqrt(module.in_features)
        a = torch.empty(shape.rank, module.in_features).uniform_(-bound, bound, generator=generator)
        tensors[a_name] = a.to(module.weight.device)
        tensors[b_name] = torch.zeros(module.out_features, shape.rank, device=module.weight.device)
    return tensors
