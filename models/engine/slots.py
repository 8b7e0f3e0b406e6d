"""Keys and values of the running requests, one row (slot) each, of any length each.

The cache that transformers brings makes all rows of a batch start and grow together. Here a row is
written at its own position, so requests join and leave between any two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

# Rows grow by this many positions at once: a copy now and then, and memory follows the real use.
GROWTH_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Write:
    """Where one forward pass puts its keys and values.

    Prefill: `positions` is None, the pass holds positions 0…`length` - 1 of row `row`.
    Decode: the pass holds one position of each row 0…n - 1, `positions` (n,); `length` is the
    longest of these rows, the new position included.
    """

    length: int
    row: int = 0
    positions: torch.Tensor | None = None


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: (slots, heads, tokens, head size)."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, slots: int, tokens_max: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots
        self.tokens_max = tokens_max
        self.write = Write(length=0)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # Zeros, not empty: a masked position still enters a product, and 0 · NaN is NaN.
        self.keys, self.values = (
            new.new_zeros(self.slots, new.shape[1], 0, new.shape[3])
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores (B, heads, T, D) as `write` says; returns what the pass attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length, positions = self.write.length, self.write.positions
        self._grow(length)
        if positions is None:
            self.keys[self.write.row, :, :length] = key_states[0]
            self.values[self.write.row, :, :length] = value_states[0]
            return key_states, value_states
        rows = torch.arange(len(positions), device=positions.device)
        self.keys[rows, :, positions] = key_states[:, :, 0]
        self.values[rows, :, positions] = value_states[:, :, 0]
        return self.keys[: len(rows), :, :length], self.values[: len(rows), :, :length]

    def _grow(self, length: int) -> None:
        held = self.keys.shape[2]
        if length <= held:
            return
        wanted = min(-(-length // GROWTH_TOKENS) * GROWTH_TOKENS, self.tokens_max)
        # Padding is (left, right) from the last dimension back: none of D, more of the tokens.
        room = (0, 0, 0, wanted - held)
        self.keys = torch.nn.functional.pad(self.keys, room)
        self.values = torch.nn.functional.pad(self.values, room)

    def move(self, source: int, target: int, length: int) -> None:
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.write.length, 0

    def get_seq_length(self) -> int:
        return self.write.length - 1 if self.write.positions is not None else 0

    def get_max_length(self) -> int:
        return self.tokens_max


class SlotCache(Cache):
    """One `SlotLayer` for each layer of a model."""

    def __init__(self, layers: int, slots: int, tokens_max: int) -> None:
        self.slot_layers = [SlotLayer(slots, tokens_max) for _ in range(layers)]
        super().__init__(layers=[*self.slot_layers])

    def expect(self, write: Write) -> None:
        """Says where the next forward pass writes."""
        for layer in self.slot_layers:
            layer.write = write

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of row `source` over row `target`."""
        for layer in self.slot_layers:
            layer.move(source, target, length)
