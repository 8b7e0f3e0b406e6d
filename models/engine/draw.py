"""Random draws from logits, for many rows at once. Every row's result is its own: no operation here
mixes rows, or sums a row in an order that depends on how many rows there are."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import torch

from models.engine.protocol import SamplingParams

# What a cut keeps is nearly always among the likeliest few; a row of which that is not true is
# looked at again with more of them, and in the end with all.
SIZES: Final = (64, 2048)
# The draw without cuts goes first to a block of so many tokens, then to one of them.
BLOCK_TOKENS: Final = 256
_BELOW_ONE: Final = 1.0 - 2.0**-53


def uniform(seed: int, number: int) -> float:
    """The random number in [0, 1) of draw `number` under `seed`: of these two alone."""
    digest = blake2b(seed.to_bytes(8, "little") + number.to_bytes(8, "little"), digest_size=8)
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def draw(
    logits: torch.Tensor, params: Sequence[SamplingParams], chances: Sequence[float]
) -> list[int]:
    """One token for each row of logits (n, V, float32), by the chance in [0, 1) that it is given.

    The logits are overwritten: memory for new ones costs more than the arithmetic.

    Temperature, then top_k, top_p and min_p, as Hugging Face's processors do it in this order.
    Tokens as likely as the k-th all stay; equally likely ones count in the order of their ids.
    """
    # In float32: in double the whole vocabulary would take three times as long.
    temperatures = _column([p.temperature for p in params], logits).float()
    probabilities = logits.div_(temperatures).softmax(-1)
    cut = [i for i, p in enumerate(params) if p.top_k or p.top_p < 1.0 or p.min_p]
    free = [i for i in range(len(params)) if i not in set(cut)]
    tokens = [0] * len(params)
    if free:
        rows = _rows(probabilities, free)
        drawn = draw_from_all(rows, _column([chances[i] for i in free], logits))
        for i, token in zip(free, drawn, strict=True):
            tokens[i] = token
    for size in (*SIZES, probabilities.shape[1]):
        if not cut:
            break
        drawn = _draw_from_likeliest(
            _rows(probabilities, cut), size, [params[i] for i in cut], [chances[i] for i in cut]
        )
        for i, token in zip(cut, drawn, strict=True):
            tokens[i] = token
        cut = [i for i, token in zip(cut, drawn, strict=True) if token < 0]
    return tokens


def draw_from_all(probabilities: torch.Tensor, chances: torch.Tensor) -> list[int]:
    """The token of each row (n, V) in which the chance (n, 1) falls, in the order of ids."""
    rows, size = probabilities.shape
    missing = -size % BLOCK_TOKENS
    padded = torch.nn.functional.pad(probabilities, (0, missing)) if missing else probabilities
    blocks = padded.view(rows, -1, BLOCK_TOKENS)
    block, rest = _fall(blocks.sum(-1), chances)
    within = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK_TOKENS))[:, 0]
    token, _ = _fall(within, rest)
    drawn: list[int] = (block * BLOCK_TOKENS + token)[:, 0].tolist()
    return drawn


def _fall(weights: torch.Tensor, chances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in the rows of weights (n, m) the chances (n, 1) fall, and how far into that weight."""
    ends = weights.double().cumsum(-1)
    target = chances * ends[:, -1:]
    # A weight of zero has no room to fall into.
    place = (ends <= target).sum(-1, keepdim=True)
    weight = weights.gather(1, place).double()
    into = (target - ends.gather(1, place) + weight) / weight
    return place, into.clamp(0.0, _BELOW_ONE)


def _draw_from_likeliest(
    probabilities: torch.Tensor,
    size: int,
    params: Sequence[SamplingParams],
    chances: Sequence[float],
) -> list[int]:
    """A token of each row, or -1 where more than the `size` likeliest have to be looked at."""
    likeliest, tokens = ordered(probabilities, size)
    kept, known = cut_tokens(likeliest, params, whole=likeliest.shape[1] == probabilities.shape[1])
    place, _ = _fall(likeliest * kept, _column(chances, likeliest))
    drawn: list[int] = torch.where(known, tokens.gather(1, place), -1)[:, 0].tolist()
    return drawn


def ordered(probabilities: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `size` likeliest of each row (n, V) and their ids: likelier first, then lower id."""
    if size >= probabilities.shape[1]:
        values, tokens = torch.sort(probabilities, stable=True, dim=-1, descending=True)
        return values, tokens
    tokens = probabilities.topk(size).indices.sort(-1).values
    values, order = torch.sort(
        probabilities.gather(1, tokens), stable=True, dim=-1, descending=True
    )
    return values, tokens.gather(1, order)


def cut_tokens(
    likeliest: torch.Tensor, params: Sequence[SamplingParams], whole: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the likeliest (n, m) the cuts keep, and for which rows (n, 1) that is certain.

    With `whole`, these are all tokens. Otherwise a row is certain when its cuts drop all that is as
    unlikely as the last one here: then they drop whatever is missing here, too.
    """
    top_k = _column([p.top_k for p in params], likeliest).long()
    top_p = _column([p.top_p for p in params], likeliest)
    min_p = _column([p.min_p for p in params], likeliest)
    last = likeliest[:, -1:]
    kth = likeliest.gather(1, (top_k - 1).clamp(0, likeliest.shape[1] - 1))
    in_top_k = (top_k == 0) | (likeliest >= kth)
    mass = (likeliest * in_top_k).double().cumsum(-1)
    total = torch.where(top_k == 0, 1.0, mass[:, -1:])
    # Nucleus: a token stays while those likelier than it hold less than top_p together.
    in_top_p = (top_p >= 1.0) | (mass - likeliest < top_p * total)
    in_min_p = likeliest >= min_p * likeliest[:, :1]
    kept = in_top_k & in_top_p & in_min_p & (likeliest > 0.0)
    known = ((top_k == 0) | (kth > last)) & ~(kept & (likeliest == last)).any(-1, keepdim=True)
    return kept, known | whole


def _rows(tensor: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    """Some rows of a tensor (n, V); all of them are not copied."""
    return tensor if len(wanted) == len(tensor) else tensor[list(wanted)]


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """(n, 1) in double, on the same device."""
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
