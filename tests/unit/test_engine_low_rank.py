"""Adapters side by side: what a pass sees of one that is being loaded meanwhile."""

from __future__ import annotations

from typing import Any

import torch
from tiny_adapter import HIDDEN, KEYS, LAYERS, tiny_tensors
from torch import Tensor

from models.engine.arrange import Adapter, Matrices, arrange
from models.engine.llama import Shape
from models.engine.low_rank import BASE, FEW_ROWS_MAX, Stacks

SHAPE = Shape(LAYERS, HIDDEN, 128, query_heads=4, key_heads=2, head_size=16)


def adapter(seed: int) -> Adapter:
    return arrange(tiny_tensors(seed), 4.0, SHAPE, torch.float32)


def added(stacks: Stacks, slots: list[int], rows: Tensor) -> Tensor:
    """What a pass adds to rows (n, in) of the adapters in `slots`."""
    low_rank = stacks.for_runs([(slot, 1) for slot in slots])
    assert low_rank is not None
    into = torch.zeros(len(slots), HIDDEN + 2 * KEYS)
    low_rank.add(0, "qkv", rows, into)
    return into


def test_passes_go_on_while_an_adapter_is_loaded() -> None:
    rows = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(0))
    stacks = Stacks(SHAPE, 4, torch.zeros(1))
    stacks.put(0, adapter(0))
    before = added(stacks, [0, BASE, 0], rows)
    seen: list[Tensor] = []

    class Watched(dict[str, Matrices]):
        """Its parts are asked for while it is put into its slot."""

        def get(self, product: str, default: Any = None) -> Any:
            seen.append(added(stacks, [0, BASE, 0], rows))
            return super().get(product, default)

    stacks.put(1, Watched(adapter(1)))
    assert seen
    assert all(torch.allclose(one, before, atol=1e-6) for one in seen)
    assert torch.count_nonzero(before[1]) == 0


def test_rows_of_different_adapters_get_their_own() -> None:
    rows = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    stacks, alone = Stacks(SHAPE, 4, torch.zeros(1)), Stacks(SHAPE, 4, torch.zeros(1))
    stacks.put(0, adapter(0))
    stacks.put(1, adapter(1))
    alone.put(0, adapter(1))
    mixed = added(stacks, [1, BASE, 0], rows)
    assert torch.allclose(mixed[:1], added(alone, [0], rows[:1]), atol=1e-6)
    assert not torch.allclose(mixed[2:], added(alone, [0], rows[2:]), atol=1e-3)


def test_a_long_prompt_beside_rows_of_other_adapters_gets_its_own() -> None:
    count = FEW_ROWS_MAX + 1
    rows = torch.randn(2 + count, HIDDEN, generator=torch.Generator().manual_seed(2))
    stacks, alone = Stacks(SHAPE, 4, torch.zeros(1)), Stacks(SHAPE, 4, torch.zeros(1))
    stacks.put(0, adapter(0))
    stacks.put(1, adapter(1))
    alone.put(0, adapter(1))
    mixed = added(stacks, [0, BASE, *[1] * count], rows)
    assert torch.allclose(mixed[2:], added(alone, [0] * count, rows[2:]), atol=1e-6)
    assert torch.equal(mixed[:2], added(stacks, [0, BASE], rows[:2]))
