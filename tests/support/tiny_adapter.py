"""Random adapters for the tiny model, strong enough that each gives answers of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.learning.adapter_files import write_adapter
from models.learning.lora import LoraShape, names_of

LAYERS, HIDDEN, KEYS = 2, 64, 32
RANK = 2


def tiny_tensors(seed: int, rank: int = RANK) -> dict[str, Tensor]:
    """Of q_proj and v_proj, in both layers."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module, size in (("q_proj", HIDDEN), ("v_proj", KEYS)):
            a_name, b_name = names_of(f"model.layers.{layer}.self_attn.{module}")
            tensors[a_name] = torch.randn(rank, HIDDEN, generator=generator) / 8
            tensors[b_name] = torch.randn(size, rank, generator=generator) / 2
    return tensors


def write_tiny_adapter(folder: Path, seed: int, rank: int = RANK) -> str:
    """Writes it in PEFT's layout; returns the sha256 of its weights."""
    shape = LoraShape(rank, 8.0, ("q_proj", "v_proj"))
    return write_adapter(folder, tiny_tensors(seed, rank), shape, "tiny")
