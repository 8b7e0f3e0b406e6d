"""Passages as texts, and their tokens packed into rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from transformers import PreTrainedTokenizerBase

from models.learning.batches import EncodedAnswer

# What most tokenizers put between two documents; where it is missing, their own end token.
_BETWEEN = "<|endoftext|>"
# Tokens of a text that are read: the rest of a longer one is left out.
TEXT_TOKENS_MAX = 512


class Text(msgspec.Struct, frozen=True):
    """A passage to be studied; `text_id` is its passage_id."""

    text_id: str
    document_id: str
    text: str


def separator(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before and between texts."""
    found = tokenizer.get_vocab().get(_BETWEEN)
    end: int = tokenizer.eos_token_id if found is None else found
    return end


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens_max: int = TEXT_TOKENS_MAX
) -> list[list[int]]:
    """Tokens of each text, cut after `tokens_max`; what spells a control token stays text."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True
    )["input_ids"]
    return [tokens[:tokens_max] for tokens in found]


def pack(texts: Iterable[Sequence[int]], between: int, row_tokens: int) -> list[EncodedAnswer]:
    """Texts one after the other, `between` before each, in rows of `row_tokens` tokens.

    Every token but the first of a row is a target, and none is lost: a text that does not fit
    goes on in the next row. The last row may be shorter.
    """
    stream = [token for text in texts for token in (between, *text)]
    step = row_tokens - 1
    # Each row begins with the token that the row before ended with.
    starts = range(0, max(len(stream) - 1, 0), step)
    return [EncodedAnswer([stream[i]], stream[i + 1 : i + 1 + step]) for i in starts]


def rows_alone(texts: Iterable[Sequence[int]], between: int) -> list[EncodedAnswer]:
    """Each text by itself, after `between`: to be measured rather than learned."""
    return [EncodedAnswer([between], list(tokens)) for tokens in texts if tokens]
