"""From logits to tokens. All of a request's sampling state is in its `Sampler`, and a draw depends
on the seed and on how many tokens were chosen before, so neither the neighbours in the batch nor
the order of arrival change what a seed gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from models.engine.draw import draw, uniform
from models.engine.grammar import Grammar
from models.engine.protocol import TOP_LOGPROBS_MAX, SamplingParams

# Below this a temperature only risks overflow; the draw would be the likeliest token anyway.
TEMPERATURE_MIN: Final = 1e-5
# More rows of 49,152 float32 than this, and the allocator asks the system for new memory each time.
ROWS_TOGETHER: Final = 8


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token; if asked for, its log probability and (token, log probability) of the likeliest.

    They are of the model's own distribution, before temperature, penalties and grammar.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """What decides over the tokens of one request: a function of `params`, `prompt` and the tokens
    taken so far. `prompt` matters to repetition_penalty alone."""

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int] = (), grammar: Grammar | None = None
    ) -> None:
        self.params = params
        self.greedy = params.temperature < TEMPERATURE_MIN
        self.taken = 0
        self._grammar = grammar
        self._penalised = (params.repetition_penalty, params.frequency_penalty) != (1.0, 0.0) or (
            params.presence_penalty != 0.0
        )
        # How often each token was written; those only read count as 0.
        self._uses = dict.fromkeys(prompt, 0) if params.repetition_penalty != 1.0 else {}
        self.adjusts = self._penalised or grammar is not None

    def adjust(self, logits: torch.Tensor) -> None:
        """Applies penalties, then the grammar, to logits (V, float32) in place."""
        if self._penalised and self._uses:
            self._penalise(logits)
        if self._grammar is not None:
            self._grammar.mask(logits)

    def chance(self) -> float:
        """The random number of the next draw."""
        return uniform(self.params.seed, self.taken)

    def take(self, token: int) -> None:
        """Takes in the token that was chosen."""
        self.taken += 1
        if self._penalised:
            self._uses[token] = self._uses.get(token, 0) + 1
        if self._grammar is not None:
            self._grammar.take(token)

    def _penalise(self, logits: torch.Tensor) -> None:
        params, device = self.params, logits.device
        tokens = torch.tensor(list(self._uses), device=device)
        uses = torch.tensor(list(self._uses.values()), dtype=logits.dtype, device=device)
        scores = logits[tokens]
        # CTRL (Keskar et al. 2019), equation 2, for scores of either sign as Hugging Face does it.
        factor = params.repetition_penalty
        scores = torch.where(scores < 0, scores * factor, scores / factor)
        scores -= params.frequency_penalty * uses + params.presence_penalty * (uses > 0)
        logits[tokens] = scores


@torch.inference_mode()
def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Chosen]:
    """One token for each row of logits (n, V), which the row's sampler takes in."""
    # Twice to five times as fast as argmax, and the first of equals too.
    tokens: list[int] = logits.max(-1).indices.tolist()
    special = [i for i, sampler in enumerate(samplers) if sampler.adjusts or not sampler.greedy]
    for start in range(0, len(special), ROWS_TOGETHER):
        some = special[start : start + ROWS_TOGETHER]
        chosen = _choose_with_care(logits[some].float(), [samplers[i] for i in some])
        for i, token in zip(some, chosen, strict=True):
            tokens[i] = token
    told = _with_logprobs(logits, tokens, samplers)
    for sampler, token in zip(samplers, tokens, strict=True):
        sampler.take(token)
    return told


def _choose_with_care(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """For rows that are not just their likeliest token; logits (n, V, float32) are changed."""
    for row, sampler in zip(logits, samplers, strict=True):
        if sampler.adjusts:
            sampler.adjust(row)
    tokens: list[int] = logits.max(-1).indices.tolist()
    drawn = [i for i, sampler in enumerate(samplers) if not sampler.greedy]
    if drawn:
        params = [samplers[i].params for i in drawn]
        chosen = draw(logits[drawn], params, [samplers[i].chance() for i in drawn])
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    return tokens


def _with_logprobs(
    logits: torch.Tensor, tokens: Sequence[int], samplers: Sequence[Sampler]
) -> list[Chosen]:
    told = [Chosen(token) for token in tokens]
    asked = [i for i, sampler in enumerate(samplers) if sampler.params.logprobs]
    if not asked:
        return told
    rows = logits[asked].float().log_softmax(-1)
    # As many for all, so that one request's wish does not change what another is told.
    likeliest = rows.topk(min(TOP_LOGPROBS_MAX, rows.shape[1]))
    for row, i in enumerate(asked):
        top = zip(likeliest.indices[row].tolist(), likeliest.values[row].tolist(), strict=True)
        wanted = samplers[i].params.top_logprobs
        told[i] = Chosen(tokens[i], float(rows[row, tokens[i]]), tuple(top)[:wanted])
    return told
