"""One pass over the tokens of many requests. Knows keys, values and adapters; nothing of text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.engine.arena import Arena, Held
from models.engine.attention import DecodeGroup, GuessGroup, PieceGroup
from models.engine.decode_graphs import DecodeGraphs
from models.engine.kv_memory import KvMemory
from models.engine.llama import Attention, Llama, Shape
from models.engine.low_rank import Stacks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens that follow the `held.read` first ones of a request: one, or a piece of its prompt.

    `ends` says that they are the last known ones: the logits after them are wanted. A settled
    request's one token may have guesses behind it, each with logits of its own.
    """

    held: Held
    tokens: Sequence[int]
    adapter_slot: int
    ends: bool
    guesses: int = 0


class BatchModel:
    """The model with its memory; with `graphs`, passes of settled requests alone are recorded."""

    def __init__(
        self, model: Llama, kv: KvMemory, adapters: Stacks, graphs: DecodeGraphs | None = None
    ) -> None:
        self.model = model
        self.kv = kv
        self.adapters = adapters
        self.graphs = graphs

    def run(self, works: Sequence[Work]) -> tuple[list[Work], Tensor]:
        """Reads all tokens of `works`, which hold every settled request or none of them.

        Returns the works that end, in the order of their logits (n, V). Guesses count as read: it
        is for the caller to take back those that are wrong.
        """
        arenas, rows = self._rows(works)
        ordered = rows + [work for work in works if work.held.stage is not None]
        logits = None
        alone = len(rows) == len(ordered)
        if self.graphs and alone and not any(work.guesses for work in rows):
            logits = self._replayed(self.graphs, arenas, rows)
        if logits is None:
            logits = self._passed(arenas, ordered)
        for work in ordered:
            work.held.read += len(work.tokens)
        return [work for work in ordered if work.ends], logits

    def _rows(self, works: Sequence[Work]) -> tuple[list[Arena], list[Work]]:
        """The settled works in the order of their rows, and the arenas of these."""
        settled = {id(work.held): work for work in works if work.held.stage is None}
        arenas = [arena for arena in self.kv.arenas if arena.owners] if settled else []
        return arenas, [settled[id(held)] for arena in arenas for held in arena.owners]

    def _passed(self, arenas: Sequence[Arena], ordered: Sequence[Work]) -> Tensor:
        """Rows of `arenas`, then pieces of prompts, in one pass: the wanted logits (n, V)."""
        tokens = [token for work in ordered for token in work.tokens]
        positions = [work.held.read + step for work in ordered for step in range(len(work.tokens))]
        device = self.model.device
        return self.model(
            torch.tensor(tokens, device=device),
            torch.tensor(positions, device=device),
            self._groups(arenas, ordered),
            torch.tensor(_ends(ordered), dtype=torch.long, device=device),
            self.adapters.for_runs([(work.adapter_slot, len(work.tokens)) for work in ordered]),
        )

    def _replayed(
        self, graphs: DecodeGraphs, arenas: Sequence[Arena], rows: Sequence[Work]
    ) -> Tensor | None:
        """As `_passed`, for one token of each row; None where graphs do not work."""
        tokens, slots = [work.tokens[0] for work in rows], [work.adapter_slot for work in rows]
        try:
            return self.model.logits(graphs.read(arenas, tokens, slots))
        except Exception as error:
            log.warning(
                "CUDA graphs do not work here: %s. Answers go on without them, more slowly. "
                "Update torch and the GPU's driver, or set HEADWATER_GENERATE_CUDA_GRAPHS=false.",
                str(error).partition("\n")[0],
            )
            # What was written of keys and values is written again.
            self.graphs = None
            return None

    def _groups(self, arenas: Sequence[Arena], ordered: Sequence[Work]) -> list[Attention]:
        shape, like = self.model.shape, self.model.embeddings
        groups: list[Attention] = []
        first, rows = 0, 0
        for arena in arenas:
            counts = [len(work.tokens) for work in ordered[rows : rows + len(arena.owners)]]
            if max(counts) > 1:
                groups.append(GuessGroup(shape, arena, first, counts, like))
            else:
                groups.append(_decode_group(shape, arena, first, like))
            first += sum(counts)
            rows += len(counts)
        for work in ordered[rows:]:
            groups.append(PieceGroup(shape, work.held, len(work.tokens), first, like))
            first += len(work.tokens)
        return groups


def _decode_group(shape: Shape, arena: Arena, first: int, like: Tensor) -> DecodeGroup:
    """All rows of an arena, seen as far as the longest goes."""
    reads = [held.read for held in arena.owners]
    positions = torch.tensor(reads, device=like.device)
    even = min(reads) == max(reads)
    return DecodeGroup(shape, arena, first, positions, max(reads) + 1, like, even)


def _ends(works: Sequence[Work]) -> list[int]:
    """The place of each wanted logit's token in the pass."""
    places: list[int] = []
    count = 0
    for work in works:
        count += len(work.tokens)
        if work.ends:
            places += range(count - 1 - work.guesses, count)
    return places
