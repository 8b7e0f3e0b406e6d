"""Adapters of random weights: as costly to load and to run as trained ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel

from models.learning.adapter_files import write_adapter
from models.learning.lora import LoraShape, new_adapter

SHAPE: Final = LoraShape(rank=8, alpha=16.0)


@dataclass(frozen=True, slots=True)
class RandomAdapter:
    """A folder in PEFT's layout, and the sha256 of its weights."""

    folder: Path
    sha256: str


def random_adapters(
    model: PreTrainedModel, folder: Path, count: int, shape: LoraShape = SHAPE
) -> list[RandomAdapter]:
    """Writes so many, each small against the model's weights."""
    made = []
    for number in range(count):
        tensors = new_adapter(model, shape, seed=number)
        generator = torch.Generator().manual_seed(number)
        for name, tensor in tensors.items():
            if ".lora_B." in name:
                tensors[name] = torch.empty_like(tensor).normal_(std=1e-3, generator=generator)
        path = folder / f"adapter-{number}"
        made.append(RandomAdapter(path, write_adapter(path, tensors, shape, "random")))
    return made
