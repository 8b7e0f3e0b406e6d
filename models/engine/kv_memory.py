"""Memory for keys and values: a stated number of positions, shared by prompts that are being read,
rows of running requests, and prefixes kept for reuse.

Attention is fastest when the rows of a batch lie side by side and are equally long. So rows come in
a few sizes (256, 512, … positions), all rows of one size lie in one arena, packed from 0, and a row
that outgrows its size moves to the next: within a factor of two of what is needed, and one
attention call for each size in use. A prompt is read into memory of its own (its stage) and copied
to its row when it is complete, so that half-read prompts leave no gaps between the rows.
"""

from __future__ import annotations

from torch import Tensor

from models.engine.arena import Arena, Held
from models.engine.llama import Shape
from models.engine.prefix_cache import PrefixCache

ROW_TOKENS_MIN = 256


class KvMemory:
    """Admits requests as long as they fit, and moves them between stage and rows."""

    def __init__(
        self, shape: Shape, tokens_max: int, context_tokens_max: int, like: Tensor
    ) -> None:
        """Keys and values take the dtype and device of `like`."""
        self.tokens_max = tokens_max
        self.prefixes = PrefixCache(tokens_max // 4)
        self.arenas = [
            Arena(shape, size, tokens_max // size, like) for size in _row_sizes(context_tokens_max)
        ]
        self._shape = shape
        self._like = like
        # Of requests alone: prefixes give way.
        self.held_tokens = 0
        self._staged_tokens = 0

    def admit(self, tokens: int) -> Held | None:
        """A stage for `tokens` and the promise of a row for one more; None when nothing is free."""
        arena = self._arena_for(tokens + 1)
        if not self._reserve(arena.row_tokens + tokens):
            return None
        self._make_way(tokens)
        self._staged_tokens += tokens
        stage = self._like.new_empty(self._shape.layers, tokens, self._shape.kv_size)
        return Held(arena, stage)

    def settle(self, held: Held) -> None:
        """A prompt that was read moves from its stage to its row."""
        stage = held.stage
        assert stage is not None
        held.stage = None
        self.held_tokens -= stage.shape[1]
        self._make_row(held.arena)
        held.arena.take(held, stage)
        self._staged_tokens -= stage.shape[1]
        # Its prefix may have been stored just before.
        self._make_way(0)

    def grow(self, held: Held) -> bool:
        """Moves a row to the next larger size; False when nothing is free."""
        old = held.arena
        larger = self._arena_for(held.read + 1)
        if not self._reserve(larger.row_tokens):
            return False
        row = old.row(held).clone()
        old.give_back(held)
        self.held_tokens -= old.row_tokens
        self._make_row(larger)
        larger.take(held, row)
        return True

    def release(self, held: Held) -> None:
        """What `held` took is free again."""
        self.held_tokens -= held.tokens
        if held.stage is None:
            held.arena.give_back(held)
        else:
            self._staged_tokens -= held.stage.shape[1]
        held.stage = None

    @property
    def allocated_tokens(self) -> int:
        """All positions that take memory, idle rows included; at most `tokens_max`."""
        rows = sum(arena.capacity_tokens for arena in self.arenas)
        return rows + self._staged_tokens + self.prefixes.tokens

    def _reserve(self, tokens: int) -> bool:
        if self.held_tokens + tokens > self.tokens_max:
            return False
        self.held_tokens += tokens
        self.prefixes.shrink(self.tokens_max - self.held_tokens)
        return True

    def _make_row(self, arena: Arena) -> None:
        """Room for one more row. Where rows are copied for it, their number doubles, if all that is
        allocated stays under the limit then."""
        if not arena.full:
            return
        rows = len(arena.owners)
        others = self.allocated_tokens - arena.capacity_tokens
        for wanted in (max(2 * rows, 1) if arena.copies else rows + 1, rows + 1):
            if others + wanted * arena.row_tokens <= self.tokens_max:
                arena.resize(wanted)
                return
        self._make_way(arena.row_tokens)
        arena.resize(rows + 1)

    def _make_way(self, tokens: int) -> None:
        """Rows that nobody uses give way to so many positions, then prefixes."""
        over = self.allocated_tokens + tokens - self.tokens_max
        if over <= 0:
            return
        for arena in self.arenas:
            arena.resize(0)
        room = self.tokens_max - tokens - (self.allocated_tokens - self.prefixes.tokens)
        self.prefixes.shrink(max(0, room))

    def _arena_for(self, tokens: int) -> Arena:
        return next(arena for arena in self.arenas if arena.row_tokens >= tokens)


def _row_sizes(context_tokens_max: int) -> list[int]:
    sizes = []
    size = ROW_TOKENS_MIN
    while size < context_tokens_max:
        sizes.append(size)
        size *= 2
    return [*sizes, context_tokens_max]
