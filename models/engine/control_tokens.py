"""Texts of users never become control tokens, whatever they spell.

A tokenizer turns `<|im_end|>` into the token that ends a turn, whoever wrote it: a user could end
the own turn and open one of the system's. Which control tokens a prompt may hold is therefore read
off a rendering in which the contents are made harmless, and a prompt that holds others is encoded
piece by piece. Models whose turns are marked by ordinary text (`[INST]`) have no such tokens to
protect: their users can write these marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from transformers import AddedToken, PreTrainedTokenizerBase

# Characters without a meaning: one stands for each control token, the first for a content's ends.
_EDGE: Final = 0xF0000
_SIGNS: Final = range(_EDGE, 0xFFFFE)
_NEVER: Final = r"(?!)"

# From contents to the text of the whole prompt.
Render = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """The special tokens of a tokenizer: `ids` by their text, longest first, and a pattern."""

    ids: dict[str, int]
    pattern: re.Pattern[str]

    def found_in(self, text: str) -> Iterator[re.Match[str]]:
        """Where their texts stand, with the spaces that they swallow."""
        return self.pattern.finditer(text)

    def id_of(self, match: re.Match[str]) -> int:
        return next(number for text, number in self.ids.items() if text in match[0])


@lru_cache(maxsize=4)
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """Every special token but the one for unknown characters, which ordinary text may hold."""
    others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    unknown = {tokenizer.unk_token_id} - others
    special = [
        (token, number)
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and number not in unknown
    ]
    # As tokenizers match.
    special.sort(key=lambda item: len(item[0].content), reverse=True)
    return ControlTokens(
        {token.content: number for token, number in special},
        re.compile("|".join(_pattern(token) for token, _ in special) or _NEVER),
    )


def _pattern(token: AddedToken) -> str:
    """Finds a token in text; some swallow the spaces beside them."""
    before, after = (r"\s*" if swallows else "" for swallows in (token.lstrip, token.rstrip))
    return f"{before}{re.escape(token.content)}{after}"


def encode_contents(
    tokenizer: PreTrainedTokenizerBase, render: Render, contents: Sequence[str]
) -> list[int]:
    """The tokens of `render(contents)`; its control tokens are those that the template wrote.

    Contents without control tokens are encoded with the template in one go, as everywhere.
    """
    controls = control_tokens(tokenizer)
    guard = _Guard(controls)
    guarded = render([guard.harmless(content) for content in contents])
    written = [controls.id_of(match) for match in controls.found_in(guarded)]
    tokens = _encode(tokenizer, render(contents))
    allowed = set(controls.ids.values())
    if [token for token in tokens if token in allowed] == written:
        return tokens
    return _in_pieces(tokenizer, controls, guarded, guard)


def _in_pieces(
    tokenizer: PreTrainedTokenizerBase, controls: ControlTokens, guarded: str, guard: _Guard
) -> list[int]:
    """Control tokens by their ids; what stands between them as text that spells none."""

    def plain(text: str) -> list[int]:
        tokens = _encode(tokenizer, guard.restored(text), split_special_tokens=True)
        # A vocabulary may hold the text of a control token as a word like any other.
        return [token for token in tokens if token not in allowed]

    allowed = set(controls.ids.values())
    tokens: list[int] = []
    position = 0
    for match in controls.found_in(guarded):
        tokens += [*plain(guarded[position : match.start()]), controls.id_of(match)]
        position = match.end()
    return tokens + plain(guarded[position:])


class _Guard:
    """Makes contents harmless and back: signs of their own for what they spell and for their ends.

    With its ends marked, no content can form a control token with what the template puts beside
    it. The signs stand inside of outer spaces, which many templates strip.
    """

    def __init__(self, controls: ControlTokens) -> None:
        signs = zip(_SIGNS[1:], controls.ids, strict=False)
        self._texts = {_EDGE: "", **dict(signs)}

    def harmless(self, content: str) -> str:
        """The content without a control token's text, and without these signs."""
        clean = content.translate(dict.fromkeys(self._texts))
        inner = clean.strip()
        if not inner:
            return clean
        before, _, after = clean.partition(inner)
        for sign, text in self._texts.items():
            inner = inner.replace(text, chr(sign)) if text else inner
        return f"{before}{chr(_EDGE)}{inner}{chr(_EDGE)}{after}"

    def restored(self, text: str) -> str:
        """What `harmless` replaced is as it was."""
        return text.translate(self._texts)


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, split_special_tokens: bool = False
) -> list[int]:
    tokens: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=split_special_tokens
    )["input_ids"]
    return tokens
