"""From logits to tokens. Each request draws from a generator of its own, so that neither its
neighbours in the batch nor the order of arrival change what a seed gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.engine.protocol import SamplingParams

# Below this a temperature only risks overflow; the draw would be the likeliest token anyway.
TEMPERATURE_MIN = 1e-5


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.greedy = params.temperature < TEMPERATURE_MIN
        self._generator = torch.Generator().manual_seed(params.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """A token drawn from logits (V,) after temperature, top_k and top_p, in this order."""
        scores = logits.float().cpu() / self.params.temperature
        if not self.params.top_k and self.params.top_p == 1.0:
            return self._pick(scores.softmax(0))
        kept = min(self.params.top_k or len(scores), len(scores))
        scores, tokens = scores.topk(kept)
        chances = scores.softmax(0)
        # Nucleus: a token stays while those likelier than it hold less than top_p together.
        chances[chances.cumsum(0) - chances >= self.params.top_p] = 0.0
        return int(tokens[self._pick(chances)])

    def _pick(self, chances: torch.Tensor) -> int:
        return int(torch.multinomial(chances, 1, generator=self._generator))


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each row of logits (n, V)."""
    likeliest: list[int] = logits.argmax(-1).tolist()
    return [
        token if sampler.greedy else sampler.draw(row)
        for token, sampler, row in zip(likeliest, samplers, logits, strict=True)
    ]
