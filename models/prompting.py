"""The chat prompt of a grounded answer, and which passages an answer used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

ChatMessage = Mapping[str, str]

# Of eleven wordings the one that SmolLM2-135M answered best from; docs/LOG.md has the figures.
_ASK: Final = "Using the text above, answer the question: "
# Five words in a row that also stand in a passage are no coincidence.
_SHARED_WORDS: Final = 5


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
    """1-based numbers of the passages that an answer names as `[n]` or plainly repeats."""
    runs = _runs(answer)
    return [
        number
        for number, text in enumerate(passages, start=1)
        if f"[{number}]" in answer or not runs.isdisjoint(_runs(text))
    ]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = ["".join(filter(str.isalnum, word)).lower() for word in text.split()]
    words = [word for word in words if word]
    return {
        tuple(words[start : start + _SHARED_WORDS])
        for start in range(len(words) - _SHARED_WORDS + 1)
    }
