"""Two adapters on one row, as one adapter: exact, for what LoRA adds is linear.

s1 B1 A1 x + s2 B2 A2 x is (s1 B1, s2 B2) (A1 above A2) x: a rank of r1 + r2, and no new rounding.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from models.learning.adapter_files import read_adapter, write_adapter
from models.learning.lora import LoraShape
from models.privacy.noise import Tensors

_A, _B = ".lora_A.weight", ".lora_B.weight"


def composed(
    first: tuple[Tensors, LoraShape], second: tuple[Tensors, LoraShape]
) -> tuple[Tensors, LoraShape]:
    """The adapter that adds what both add. A module that only one changes has zeros of the other,
    for PEFT's files have one rank."""
    modules = sorted(
        {name.removesuffix(_A) for t, _ in (first, second) for name in t if name.endswith(_A)}
    )
    tensors: Tensors = {}
    for module in modules:
        pairs = [_pair(*part, module) for part in (first, second)]
        known = next(pair for pair in pairs if pair is not None)
        downs, ups = [], []
        for pair, (_, shape) in zip(pairs, (first, second), strict=True):
            a, b = pair if pair is not None else _nothing(known, shape.rank)
            downs.append(a)
            ups.append(b)
        tensors[f"{module}{_A}"] = torch.cat(downs, 0)
        tensors[f"{module}{_B}"] = torch.cat(ups, 1)
    rank = first[1].rank + second[1].rank
    targets = tuple(sorted({*first[1].targets, *second[1].targets}))
    return tensors, LoraShape(rank, float(rank), targets)


def compose_folders(first: Path, second: Path, cache: Path) -> Path:
    """A folder in `cache` with both adapters as one; there as a whole or not at all.

    Raises DataInvalid for a folder that holds no adapter.
    """
    name = hashlib.sha256(f"{first.name} {second.name}".encode()).hexdigest()
    folder = cache / f"{name}-composed"
    if not folder.exists():
        tensors, shape = composed(read_adapter(first), read_adapter(second))
        write_adapter(folder, tensors, shape, "")
    return folder


def _pair(tensors: Tensors, shape: LoraShape, module: str) -> tuple[Tensor, Tensor] | None:
    """A (rank, in) and B (out, rank) of a module, the scaling in B."""
    if f"{module}{_A}" not in tensors:
        return None
    return tensors[f"{module}{_A}"].float(), shape.scaling * tensors[f"{module}{_B}"].float()


def _nothing(like: tuple[Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor]:
    a, b = like
    return a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)
