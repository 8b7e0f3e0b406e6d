"""Putting the chunks of one answer together: attempts, repeats and gaps. Pure, no Kafka."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import FoundPassage, Generation, TokenChunk, TokenLogprob


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer. `restart` means: forget what came before, `text` is all of it.

    Of n answers, `choice` says which one (0 to n - 1) it belongs to. `logprobs` are those of its
    tokens, where the prompt asked for them; the last delta of an answer may hold nothing else.
    """

    text: str
    model_version: str
    restart: bool = False
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Assembly:
    """The texts of one generation as its chunks arrive, in any attempt.

    A worker that died is replaced by a new attempt that starts at index 0. As long as the new
    attempt repeats what was delivered, nothing is delivered twice; where it differs the reader is
    told to start over. A gap is bridged by the finished record in the last chunk.
    """

    def __init__(self) -> None:
        self.passages: list[FoundPassage] = []
        self.generation: Generation | None = None
        # By choice.
        self._delivered: dict[int, str] = {}
        self._attempt_texts: dict[int, str] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._logprobs_delivered: dict[int, int] = {}
        self._attempt = -1
        self._index = 0

    @property
    def begun(self) -> bool:
        """Whether the reader has some text of any answer."""
        return any(self._delivered.values())

    def delivered(self, choice: int = 0) -> str:
        """What the reader has of one answer."""
        return self._delivered.get(choice, "")

    def add(self, chunk: TokenChunk) -> list[Delta]:
        """The texts that this chunk adds for the reader."""
        if self.generation is not None:
            return []
        # The finished record is the truth whoever carries it, also a worker with a slow clock.
        if chunk.attempt < self._attempt and chunk.generation is None:
            return []
        if chunk.attempt > self._attempt:
            self._attempt, self._attempt_texts, self._index = chunk.attempt, {}, 0
            self._logprobs = {}
        if chunk.index == self._index:
            self._index += 1
            self.passages = chunk.passages or self.passages
            text = self._attempt_texts.get(chunk.choice, "")
            self._attempt_texts[chunk.choice] = text + chunk.text
            if chunk.logprobs:
                self._logprobs.setdefault(chunk.choice, []).extend(chunk.logprobs)
        if chunk.generation is not None:
            self._finish(chunk.generation)
        choices = [chunk.choice] if chunk.generation is None else sorted(self._attempt_texts)
        deltas = [self._advance(choice, chunk.model_version) for choice in choices]
        return [delta for delta in deltas if delta is not None]

    def _finish(self, generation: Generation) -> None:
        self.generation = generation
        self.passages = generation.passages
        texts = [generation.text, *(other.text for other in generation.alternatives)]
        self._attempt_texts = dict(enumerate(texts))
        logprobs = [generation.logprobs, *(other.logprobs for other in generation.alternatives)]
        self._logprobs = dict(enumerate(logprobs))

    def _advance(self, choice: int, model_version: str) -> Delta | None:
        text, delivered = self._attempt_texts.get(choice, ""), self.delivered(choice)
        final = self.generation is not None
        if delivered.startswith(text) and not (final and (text != delivered or self._left(choice))):
            return None
        self._delivered[choice] = text
        if text.startswith(delivered):
            new = text[len(delivered) :]
            return Delta(new, model_version, choice=choice, logprobs=self._left(choice, take=True))
        self._logprobs_delivered[choice] = 0
        logprobs = self._left(choice, take=True)
        return Delta(text, model_version, restart=True, choice=choice, logprobs=logprobs)

    def _left(self, choice: int, *, take: bool = False) -> tuple[TokenLogprob, ...]:
        """The log probabilities that the reader does not have yet; it has them when taken."""
        known, delivered = self._logprobs.get(choice, []), self._logprobs_delivered.get(choice, 0)
        if take:
            self._logprobs_delivered[choice] = max(delivered, len(known))
        return tuple(known[delivered:])
