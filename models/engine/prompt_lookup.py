"""Guesses at the next tokens: what followed the same words earlier in the text.

An answer from passages copies from them (prompt lookup decoding, Saxena 2023). A guess costs
little to check beside the token that has to be read anyway, and never changes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# So many equal tokens before a place make it a guess.
LAST_TOKENS: Final = 2


class PromptLookup:
    """Follows the growing tokens of one request."""

    def __init__(self) -> None:
        # What ends at a place → the place behind it, the latest one.
        self._behind: dict[tuple[int, ...], int] = {}
        self._known = LAST_TOKENS

    def guess(self, tokens: Sequence[int], count: int) -> Sequence[int]:
        """Up to `count` tokens that might come after `tokens`, which begin with those of the last
        call."""
        for end in range(self._known, len(tokens)):
            self._behind[tuple(tokens[end - LAST_TOKENS : end])] = end
        self._known = max(self._known, len(tokens))
        place = self._behind.get(tuple(tokens[-LAST_TOKENS:]))
        return () if place is None else tokens[place : place + count]
