"""How the tokens of one pass look at keys and values: rows that decode together, and pieces of one
text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from models.engine.arena import Arena, Held
from models.engine.llama import Shape


class DecodeGroup:
    """One new token for each of an arena's first rows, in their order."""

    def __init__(
        self,
        shape: Shape,
        arena: Arena,
        first: int,
        positions: Tensor,
        length: int,
        like: Tensor,
        even: bool = False,
    ) -> None:
        """`first` is the place of row 0's token in the pass, `positions` (rows,) are those in the
        rows. No row goes beyond `length`; `even` says that all of them go so far."""
        self.tokens = slice(first, first + len(positions))
        self._shape, self._arena, self._rows = shape, arena, len(positions)
        self._length = length
        self._places = arena.places(torch.arange(self._rows, device=like.device), positions)
        self._mask: Tensor | None = None
        if not even:
            # A row must not see what longer rows have beyond its end.
            beyond = torch.arange(length, device=like.device) > positions[:, None]
            mask = _hide(beyond, like)[:, None, None]  # (rows, 1, 1, length)
            self._mask = mask.expand(-1, shape.key_heads, shape.queries_per_key, -1)

    def attend(self, layer: int, queries: Tensor, kv: Tensor) -> Tensor:
        """See `llama.Attention`."""
        shape, arena = self._shape, self._arena
        arena.flat.index_copy_(0, self._places[layer], kv)
        seen = arena.layers[layer][: self._rows, : self._length]
        keys, values = _heads(shape, seen)
        # The query heads that share a key head take the place of successive tokens: no copies of
        # keys and values.
        asked = queries.view(self._rows, shape.key_heads, -1, shape.head_size)
        found = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=self._mask)
        return found.reshape(self._rows, shape.query_size)


class GuessGroup:
    """New tokens for each of an arena's rows, in their order: one, and guesses behind it."""

    def __init__(
        self, shape: Shape, arena: Arena, first: int, counts: Sequence[int], like: Tensor
    ) -> None:
        """`first` is the place of row 0's first token in the pass, which has `counts[r]` of row r.
        As many for each row are asked for: those that a row lacks are its last one again."""
        self.tokens = slice(first, first + sum(counts))
        self._shape, self._arena, self._rows, self._most = shape, arena, len(counts), max(counts)
        reads = torch.tensor([held.read for held in arena.owners], device=like.device)
        lasts = torch.tensor(counts, device=like.device) - 1
        step = torch.arange(self._most, device=like.device)
        # All are (rows, most) until they are flat.
        steps = torch.minimum(step, lasts[:, None])
        positions = reads[:, None] + steps
        starts = lasts.cumsum(0) + torch.arange(self._rows, device=like.device) - lasts
        self._asked = (starts[:, None] + steps).flatten()
        given = [r * self._most + i for r, count in enumerate(counts) for i in range(count)]
        self._given = torch.tensor(given, device=like.device)
        rows = self._given // self._most
        self._places = arena.places(rows, positions.flatten()[self._given])
        # The device is not asked for it: that would wait.
        ends = [held.read + count for held, count in zip(arena.owners, counts, strict=True)]
        self._length = max(ends)
        beyond = torch.arange(self._length, device=like.device) > positions[:, :, None]
        mask = _hide(beyond, like).repeat(1, shape.queries_per_key, 1)
        # (rows, K, G · most, length)
        self._mask = mask[:, None].expand(-1, shape.key_heads, -1, -1)

    def attend(self, layer: int, queries: Tensor, kv: Tensor) -> Tensor:
        """See `llama.Attention`."""
        shape, arena = self._shape, self._arena
        arena.flat.index_copy_(0, self._places[layer], kv)
        keys, values = _heads(shape, arena.layers[layer][: self._rows, : self._length])
        split = (self._rows, self._most, shape.key_heads, shape.queries_per_key, shape.head_size)
        # (rows, most, K, G, D) → (rows, K, G · most, D)
        asked = queries[self._asked].view(split).permute(0, 2, 3, 1, 4).flatten(2, 3)
        found = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=self._mask)
        heads = found.view(*asked.shape[:2], -1, self._most, shape.head_size)
        return heads.permute(0, 3, 1, 2, 4).reshape(-1, shape.query_size)[self._given]


class PieceGroup:
    """A piece of one request's prompt: successive tokens, which see its earlier ones and each
    other."""

    def __init__(self, shape: Shape, held: Held, count: int, first: int, like: Tensor) -> None:
        self.tokens = slice(first, first + count)
        self._shape = shape
        assert held.stage is not None
        self._layers = held.stage
        self._start, self._end = held.read, held.read + count
        self._mask: Tensor | None = None
        if count > 1:
            positions = torch.arange(self._start, self._end, device=like.device)
            beyond = torch.arange(self._end, device=like.device) > positions[:, None]
            # (G · count, end): once for each query head that shares a key head.
            self._mask = _hide(beyond, like).repeat(shape.queries_per_key, 1)

    def attend(self, layer: int, queries: Tensor, kv: Tensor) -> Tensor:
        """See `llama.Attention`."""
        shape, stored = self._shape, self._layers[layer]
        stored[self._start : self._end] = kv
        keys, values = _heads(shape, stored[None, : self._end])
        # (count, K, G, D) → (1, K, G · count, D)
        count = len(queries)
        split = queries.view(count, shape.key_heads, shape.queries_per_key, shape.head_size)
        asked = split.permute(1, 2, 0, 3).reshape(1, shape.key_heads, -1, shape.head_size)
        found = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=self._mask)
        heads = found.view(shape.key_heads, shape.queries_per_key, count, shape.head_size)
        return heads.permute(2, 0, 1, 3).reshape(count, shape.query_size)


def _heads(shape: Shape, kv: Tensor) -> tuple[Tensor, Tensor]:
    """Stored (rows, length, 2·K·D) as keys and values, (rows, K, length, D) each; no copy."""
    rows, length, _ = kv.shape
    keys, values = kv.view(rows, length, 2, shape.key_heads, shape.head_size).unbind(2)
    return keys.transpose(1, 2), values.transpose(1, 2)


def _hide(hidden: Tensor, like: Tensor) -> Tensor:
    """0 where attention may look, minus infinity where `hidden`."""
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(hidden, float("-inf"))
