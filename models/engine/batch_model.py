"""One pass over the tokens of many requests. Knows keys, values and adapters; nothing of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.engine.arena import Held
from models.engine.attention import DecodeGroup, PieceGroup
from models.engine.kv_memory import KvMemory
from models.engine.llama import Llama
from models.engine.low_rank import Stacks


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens that follow the `held.read` first ones of a request: one, or a piece of its prompt.

    `ends` says that they are the last known ones: the logits after them are wanted. One whose row
    is alone in the pass may have guesses behind them, each with logits of its own.
    """

    held: Held
    tokens: Sequence[int]
    adapter_slot: int
    ends: bool
    guesses: int = 0


class BatchModel:
    """The model with its memory."""

    def __init__(self, model: Llama, kv: KvMemory, adapters: Stacks) -> None:
        self.model = model
        self.kv = kv
        self.adapters = adapters

    def run(self, works: Sequence[Work]) -> tuple[list[Work], torch.Tensor]:
        """Reads all tokens of `works`, which hold every settled request or none of them.

        Returns the works that end, in the order of their logits (n, V). Guesses count as not read.
        """
        ordered, groups = self._groups(works)
        tokens = [token for work in ordered for token in work.tokens]
        positions = [work.held.read + step for work in ordered for step in range(len(work.tokens))]
        device = self.model.device
        logits = self.model(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            groups,
            torch.tensor(_ends(ordered), dtype=torch.long, device=device),
            self.adapters.for_runs([(work.adapter_slot, len(work.tokens)) for work in ordered]),
        )
        for work in ordered:
            work.held.read += len(work.tokens) - work.guesses
        return [work for work in ordered if work.ends], logits

    def _groups(self, works: Sequence[Work]) -> tuple[list[Work], list[DecodeGroup | PieceGroup]]:
        """Works in the order of rows, arena by arena, then those that read prompts."""
        shape, like = self.model.shape, self.model.embeddings
        if works[0].guesses:
            return list(works), [PieceGroup(shape, works[0].held, len(works[0].tokens), 0, like)]
        settled = {id(work.held): work for work in works if work.held.stage is None}
        ordered: list[Work] = []
        groups: list[DecodeGroup | PieceGroup] = []
        for arena in self.kv.arenas if settled else []:
            if arena.owners:
                groups.append(DecodeGroup(shape, arena, len(ordered), like))
                ordered += [settled[id(held)] for held in arena.owners]
        count = len(ordered)
        for work in works:
            if work.held.stage is not None:
                groups.append(PieceGroup(shape, work.held, len(work.tokens), count, like))
                ordered.append(work)
                count += len(work.tokens)
        return ordered, groups


def _ends(works: Sequence[Work]) -> list[int]:
    """The place of each wanted logit's token in the pass."""
    places: list[int] = []
    count = 0
    for work in works:
        count += len(work.tokens)
        if work.ends:
            places += range(count - 1 - work.guesses, count)
    return places
