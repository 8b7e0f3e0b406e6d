"""Rows of keys and values, equally long and side by side, as attention wants them."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.engine.llama import Shape

_LAZY: Final = hasattr(mmap, "MADV_DONTNEED") and hasattr(mmap, "MAP_ANONYMOUS")


@dataclass(slots=True, eq=False)
class Held:
    """What one request holds: a stage while its prompt is read, then row `index` of an arena.

    `read` is the number of positions whose keys and values are there.
    """

    arena: Arena
    stage: Tensor | None  # (layers, positions, 2·K·D)
    read: int = 0
    index: int = -1

    @property
    def tokens(self) -> int:
        """Positions counted against the limit."""
        return self.arena.row_tokens + (0 if self.stage is None else self.stage.shape[1])


class Arena:
    """Rows of `row_tokens` positions; rows 0 … len(owners) - 1 are in use.

    On a CPU an arena has addresses for `rows_max` rows from the start, and memory for those that
    were ever used: rows come and go, and no other row is copied for it. Elsewhere they are copied.
    """

    def __init__(self, shape: Shape, row_tokens: int, rows_max: int, like: Tensor) -> None:
        self.row_tokens = row_tokens
        self.owners: list[Held] = []
        self._row = (shape.layers, row_tokens, shape.kv_size)
        self._like = like
        self._pages = _Pages(self._row, rows_max, like) if _LAZY and like.is_cpu else None
        self._rows = 0
        # Counts the addresses that the rows had: what knows one must ask again after a move.
        self.moves = 0
        # Zeros, not empty: a masked position still enters a product, and 0 · NaN is NaN.
        self._use(self._pages.kv if self._pages else like.new_zeros(0, *self._row))

    @property
    def capacity_tokens(self) -> int:
        """Positions that take memory."""
        return self._rows * self.row_tokens

    @property
    def rows(self) -> int:
        """Rows that have memory; those that nobody owns may be written."""
        return self._rows

    @property
    def full(self) -> bool:
        return len(self.owners) == self._rows

    @property
    def copies(self) -> bool:
        """Whether to change the number of rows means to copy them."""
        return self._pages is None

    def resize(self, rows: int) -> None:
        """Memory for `rows` rows, at least those in use."""
        rows = max(rows, len(self.owners))
        if self._pages is not None:
            self._pages.release(rows, self._rows)
        elif rows != self._rows:
            larger = self._like.new_zeros(rows, *self._row)
            larger[: len(self.owners)] = self._kv[: len(self.owners)]
            self._use(larger)
        self._rows = rows

    def take(self, held: Held, source: Tensor) -> None:
        """A new last row, with the first `held.read` positions of source (layers, …, 2·K·D)."""
        held.arena, held.index = self, len(self.owners)
        self.owners.append(held)
        self._kv[held.index, :, : held.read] = source[:, : held.read]

    def give_back(self, held: Held) -> None:
        """The last row moves into the gap."""
        last = self.owners.pop()
        if last is not held:
            self._kv[held.index, :, : last.read] = self._kv[last.index, :, : last.read]
            self.owners[held.index] = last
            last.index = held.index

    def row(self, held: Held) -> Tensor:
        """(layers, row_tokens, 2·K·D)"""
        return self._kv[held.index]

    def places(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Where `positions` (n,) of `rows` (n,) are in `flat`, for each layer."""
        layers = self._row[0]
        layer = torch.arange(layers, device=positions.device)[:, None]
        return ((rows * layers + layer) * self.row_tokens + positions).unbind(0)

    def _use(self, kv: Tensor) -> None:
        self.moves += 1
        self._kv = kv  # (rows, layers, row_tokens, 2·K·D)
        self.layers = kv.unbind(1)
        self.flat = kv.view(-1, self._row[2])


class _Pages:
    """Zeros that take memory once they are written: private pages of the operating system."""

    def __init__(self, row: tuple[int, int, int], rows_max: int, like: Tensor) -> None:
        self._row_bytes = row[0] * row[1] * row[2] * like.element_size()
        size = max(rows_max * self._row_bytes, mmap.PAGESIZE)
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        count = rows_max * row[0] * row[1] * row[2]
        flat = torch.frombuffer(self._map, dtype=like.dtype, count=count)
        self.kv = flat.view(rows_max, *row)

    def release(self, first: int, end: int) -> None:
        """Gives rows `first` to `end` - 1 back, but for pages that other rows share."""
        start = -(-first * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        length = end * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, start, length)
