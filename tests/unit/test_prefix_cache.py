"""What is kept of prompts that begin alike, when there is no room for all."""

from __future__ import annotations

import torch

from models.engine.prefix_cache import BLOCK_TOKENS, PrefixCache

SHARED = list(range(BLOCK_TOKENS))


def prompt(number: int) -> list[int]:
    """The shared block and two of its own."""
    return SHARED + [1000 + number] * (2 * BLOCK_TOKENS)


def stage() -> torch.Tensor:
    return torch.zeros(1, 4 * BLOCK_TOKENS, 2)


def test_the_beginning_that_prompts_share_outlives_what_follows_it() -> None:
    cache = PrefixCache(4 * BLOCK_TOKENS)
    for number in range(5):
        cache.load("v", prompt(number), stage())
        cache.store("v", prompt(number), stage())
    # The last one as a whole, and of the one before it what fits.
    assert cache.load("v", [*prompt(4), 7], stage()) == 3 * BLOCK_TOKENS
    cache.shrink(BLOCK_TOKENS)
    assert cache.load("v", [*prompt(4), 7], stage()) == BLOCK_TOKENS
    assert cache.load("v", [*prompt(9), 7], stage()) == BLOCK_TOKENS


def test_another_version_shares_nothing() -> None:
    cache = PrefixCache(4 * BLOCK_TOKENS)
    cache.store("v", prompt(0), stage())
    assert cache.load("w", prompt(0), stage()) == 0
