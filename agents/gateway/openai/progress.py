"""How much of an answer a reader has, and what of the next delta is new to them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from agents.gateway.errors import AnswerChanged
from agents.gateway.openai.positions import Sent
from schemas.events import TokenLogprob
from streams.assembly import Delta

_DIGEST_BYTES: Final = 6


def _hash() -> Any:
    return blake2b(digest_size=_DIGEST_BYTES)


@dataclass(slots=True)
class _Choice:
    """`has` is what the reader had before; of the answer itself so much came by now."""

    has: Sent
    chars: int = 0
    logprobs: int = 0
    digest: Any = field(default_factory=_hash)

    def take(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> tuple[str, Any]:
        known = min(len(text), max(0, self.has.chars - self.chars))
        old, new = text[:known], text[known:]
        if known:
            self._add(old)
            if self.chars == self.has.chars and self.digest.digest() != self.has.digest:
                raise _changed()
        self._add(new)
        seen = min(len(logprobs), max(0, self.has.logprobs - self.logprobs))
        self.logprobs += len(logprobs)
        return new, logprobs[seen:]

    def _add(self, text: str) -> None:
        if text:
            self.digest.update(text.encode("utf-8", "surrogatepass"))
            self.chars += len(text)


class Progress:
    """The choices of one answer. A reader who resumes begins with what they had."""

    def __init__(self, choices: int, has: tuple[Sent, ...] = ()) -> None:
        self._choices = [_Choice(sent) for sent in has or (Sent(),) * choices]

    def take(self, delta: Delta) -> tuple[str, tuple[TokenLogprob, ...]] | None:
        """What of a delta the reader does not have yet; None for nothing.

        Raises AnswerChanged where it contradicts what they have.
        """
        choice = self._choices[delta.choice]
        if delta.restart:
            if choice.chars > choice.has.chars:
                raise _changed()
            choice = self._choices[delta.choice] = _Choice(choice.has)
        text, logprobs = choice.take(delta.text, delta.logprobs)
        return (text, logprobs) if text or logprobs else None

    def finish(self) -> None:
        """Raises AnswerChanged for an answer that ended before what the reader has."""
        if any(choice.chars < choice.has.chars for choice in self._choices):
            raise _changed()

    def sent(self) -> tuple[Sent, ...]:
        """What the reader has now."""
        return tuple(
            choice.has
            if choice.chars < choice.has.chars
            else Sent(
                choice.chars,
                max(choice.logprobs, choice.has.logprobs),
                choice.digest.digest() if choice.chars else b"",
            )
            for choice in self._choices
        )


def _changed() -> AnswerChanged:
    return AnswerChanged(
        "Another worker took this answer over and words it differently.",
        "Forget what came, and ask again.",
    )
