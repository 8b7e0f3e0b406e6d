"""A causal model and its slots: prefill one row, decode all rows. Knows nothing of requests."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from models.engine.slots import SlotCache, Write


class BatchModel:
    """Rows 0…n - 1 run; the caller keeps them packed with `move`."""

    def __init__(self, model: PreTrainedModel, slots: int, tokens_max: int) -> None:
        self.model = model
        self.device = model.device
        layers = model.config.get_text_config().num_hidden_layers
        self.cache = SlotCache(layers, slots, tokens_max)

    @torch.inference_mode()
    def prefill(self, row: int, tokens: list[int]) -> torch.Tensor:
        """Reads a whole prompt into `row`; returns the logits (V,) of what follows it."""
        self.cache.expect(Write(length=len(tokens), row=row))
        return self._forward(
            torch.tensor([tokens], device=self.device),
            torch.arange(len(tokens), device=self.device)[None],
            mask=None,
        )[0]

    @torch.inference_mode()
    def decode(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        """Appends token i at position i to each row i; returns the logits (n, V) that follow."""
        at = torch.tensor(positions, device=self.device)
        length = max(positions) + 1
        self.cache.expect(Write(length=length, positions=at))
        # (n, 1, 1, T): row i sees its own positions, not what longer rows have beyond them.
        mask = (torch.arange(length, device=self.device) <= at[:, None])[:, None, None]
        return self._forward(torch.tensor(tokens, device=self.device)[:, None], at[:, None], mask)

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Row `source`, of `length` positions, takes the place of row `target`."""
        self.cache.move(source, target, length)

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]
