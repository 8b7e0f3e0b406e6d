"""Keys and values of beginnings that prompts share: the system prompt, a passage asked about often.

A block is known by the adapter version and by every token up to its end, through a chain of
cryptographic hashes: a swap can serve no stale prefix, and nobody can craft a prompt that is taken
for another.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor

BLOCK_TOKENS = 32


class PrefixCache:
    """Blocks of 32 positions, the least recently used given up first."""

    def __init__(self, tokens_max: int) -> None:
        self.tokens_max = tokens_max
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Positions held."""
        return len(self._blocks) * BLOCK_TOKENS

    def load(self, version: str, tokens: Sequence[int], stage: Tensor) -> int:
        """Copies the longest known beginning of `tokens` into stage (layers, positions, 2·K·D).

        Returns how many positions that is: never all, for the last one's logits are needed.
        """
        found: list[bytes] = []
        for key in block_keys(version, tokens[:-1]):
            block = self._blocks.get(key)
            if block is None:
                break
            read = len(found) * BLOCK_TOKENS
            stage[:, read : read + BLOCK_TOKENS] = block
            found.append(key)
        self._use(found)
        return len(found) * BLOCK_TOKENS

    def store(self, version: str, tokens: Sequence[int], stage: Tensor) -> None:
        """Keeps the whole blocks of a prompt, read into stage (layers, positions, 2·K·D)."""
        keys = list(block_keys(version, tokens))
        for place, key in enumerate(keys):
            if key not in self._blocks:
                start = place * BLOCK_TOKENS
                self._blocks[key] = stage[:, start : start + BLOCK_TOKENS].clone()
        self._use(keys)
        self.shrink(self.tokens_max)

    def shrink(self, tokens_max: int) -> None:
        """Gives blocks up until `tokens_max` positions are left at most."""
        while self.tokens > tokens_max:
            self._blocks.popitem(last=False)

    def _use(self, keys: Sequence[bytes]) -> None:
        """Beginnings last: more prompts share them, and without them no later block is found."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)


def block_keys(version: str, tokens: Sequence[int]) -> Iterator[bytes]:
    """A key for each whole block; each holds all before it."""
    key = hashlib.blake2b(version.encode(), digest_size=16).digest()
    for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
        block = array("q", tokens[end - BLOCK_TOKENS : end]).tobytes()
        key = hashlib.blake2b(key + block, digest_size=16).digest()
        yield key
