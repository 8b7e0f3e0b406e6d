"""The chat prompt of a grounded answer, and which passages an answer used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

ChatMessage = Mapping[str, str]

# Of eleven wordings the one that SmolLM2-135M answered best from; docs/LOG.md has the figures.
_ASK: Final = "Using the text above, answer the question: "
# So many words in a row, one of them longer, that also stand in a passage are no coincidence.
_SHARED_WORDS: Final = 3
# Nor is it when most of the longer words of an answer stand in one passage.
_LONG_WORD_CHARS: Final = 5
_LONG_WORDS_SHARE: Final = 0.6


def build_messages(
    messages: Sequence[ChatMessage], passages: Sequence[str]
) -> tuple[ChatMessage, ...]:
    """The conversation with numbered passages before the last question.

    They stand in the last user turn, next to the question: small models read what is near.
    """
    if not passages:
        return tuple(messages)
    numbered = "\n\n".join(f"[{n}] {text}" for n, text in enumerate(passages, start=1))
    *earlier, last = messages
    content = f"{numbered}\n\n{_ASK}{last['content']}"
    return (*earlier, {"role": last["role"], "content": content})


def fit_passages(
    messages: Sequence[ChatMessage],
    passages: Sequence[str],
    count_tokens: Callable[[tuple[ChatMessage, ...]], int],
    tokens_max: int,
) -> int:
    """How many of the best passages fit beside the conversation in `tokens_max` prompt tokens."""
    for count in range(len(passages), 0, -1):
        if count_tokens(build_messages(messages, passages[:count])) <= tokens_max:
            return count
    return 0


def cited_passages(answer: str, passages: Sequence[str]) -> list[int]:
    """1-based numbers of the passages that an answer names as `[n]` or plainly draws on."""
    said = words(answer)
    return [
        number
        for number, text in enumerate(passages, start=1)
        if f"[{number}]" in answer or _draws_on(said, words(text))
    ]


def _draws_on(answer: Sequence[str], passage: Sequence[str]) -> bool:
    if not _runs(answer).isdisjoint(_runs(passage)):
        return True
    long_words = {word for word in answer if len(word) >= _LONG_WORD_CHARS}
    shared = long_words & set(passage)
    return len(shared) > 1 and len(shared) >= _LONG_WORDS_SHARE * len(long_words)


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    starts = range(len(words) - _SHARED_WORDS + 1)
    runs = {tuple(words[start : start + _SHARED_WORDS]) for start in starts}
    return {run for run in runs if any(len(word) >= _LONG_WORD_CHARS for word in run)}
