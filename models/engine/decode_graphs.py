"""Passes of one token for each running request, recorded as CUDA graphs and replayed.

For a small model Python takes longer to start a pass's kernels than a GPU to run them; a graph is
started at once. It repeats what was recorded, to the address: so rows are padded to powers of two
and look at their arena's whole length, what differs from pass to pass is written into a buffer
first, and what moves (an arena that grows, adapters that need more room) is recorded anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.engine.arena import Arena
from models.engine.attention import DecodeGroup
from models.engine.llama import Llama
from models.engine.low_rank import BASE, Stacks

# They take GPU memory beside keys and values; the one that was longest unused goes first.
GRAPHS_MAX: Final = 64

Pass = Callable[[], Tensor]


class DecodePass:
    """A token for each of the first rows of some arenas, as a function of `inputs` alone: tokens,
    positions and adapter slots, (3, n). Nothing in it waits for the device."""

    def __init__(
        self, model: Llama, rows: Sequence[tuple[Arena, int]], adapters: Stacks | None
    ) -> None:
        self._model, self._rows, self._adapters = model, rows, adapters
        count = sum(number for _, number in rows)
        self.inputs = torch.zeros(3, count, dtype=torch.long, device=model.device)

    def __call__(self) -> Tensor:
        """What `Llama.logits` wants, (n, H)."""
        model = self._model
        tokens, positions, slots = self.inputs
        groups: list[DecodeGroup] = []
        first = 0
        for arena, number in self._rows:
            own = positions[first : first + number]
            length, like = arena.row_tokens, model.embeddings
            groups.append(DecodeGroup(model.shape, arena, first, own, length, like))
            first += number
        adapters = None if self._adapters is None else self._adapters.for_rows(slots)
        return model.read(tokens, positions, groups, adapters)


@dataclass(slots=True)
class _Known:
    decode: DecodePass
    replay: Pass | None = None


class DecodeGraphs:
    """A graph for each shape of a pass that came twice. The first time it runs unrecorded, which
    chooses and builds its kernels."""

    def __init__(
        self, model: Llama, adapters: Stacks, record: Callable[[Pass], Pass] | None = None
    ) -> None:
        """`record` makes of a pass one that repeats it; the default does it on a GPU."""
        self._model, self._adapters = model, adapters
        self._record = record or on_cuda(model.device)
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()

    def read(self, arenas: Sequence[Arena], tokens: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Reads the next token of every row of `arenas`, in order; `slots` are their adapters'.

        Returns what `Llama.logits` wants of each row, (n, H).
        """
        rows = [(arena, _padded(arena)) for arena in arenas]
        adapters = self._adapters if any(slot != BASE for slot in slots) else None
        known, run = self._look_up(rows, adapters)
        places: list[int] = []
        count = 0
        for arena, number in rows:
            places += range(count, count + len(arena.owners))
            count += number
        # The rows beyond read token 0 at position 0 of rows that nobody owns.
        inputs = torch.tensor([[0], [0], [BASE]]).repeat(1, count)
        positions = [held.read for arena in arenas for held in arena.owners]
        inputs[:, places] = torch.tensor([tokens, positions, slots])
        known.decode.inputs.copy_(inputs)
        return run()[places]

    def _look_up(
        self, rows: Sequence[tuple[Arena, int]], adapters: Stacks | None
    ) -> tuple[_Known, Pass]:
        layout = None if adapters is None else adapters.layout
        key = (layout, *((arena.row_tokens, arena.moves, number) for arena, number in rows))
        known = self._known.pop(key, None)
        if known is None:
            known = _Known(DecodePass(self._model, rows, adapters))
            run: Pass = known.decode
        else:
            run = known.replay = known.replay or self._record(known.decode)
        self._known[key] = known
        if len(self._known) > GRAPHS_MAX:
            self._known.popitem(last=False)
        return known, run


def on_cuda(device: torch.device) -> Callable[[Pass], Pass]:
    """Records passes as graphs that share their memory, since they run one after another."""
    pool = torch.cuda.graph_pool_handle()

    def record(decode: Pass) -> Pass:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            # Another thread may load an adapter meanwhile: its calls are not recorded.
            torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
        ):
            hidden = decode()

        def replay() -> Tensor:
            graph.replay()
            return hidden

        return replay

    return record


def _padded(arena: Arena) -> int:
    """The next power of two, if the arena has rows for it: few shapes, so few graphs."""
    return min(1 << (len(arena.owners) - 1).bit_length(), arena.rows)
