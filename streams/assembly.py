"""Putting the chunks of one answer together: attempts, repeats and gaps. Pure, no Kafka."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import FoundPassage, Generation, TokenChunk


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer. `restart` means: forget what came before, `text` is all of it.

    Of n answers, `choice` says which one (0 to n - 1) it belongs to.
    """

    text: str
    model_version: str
    restart: bool = False
    choice: int = 0


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
        if chunk.index == self._index:
            self._index += 1
            self.passages = chunk.passages or self.passages
            text = self._attempt_texts.get(chunk.choice, "")
            self._attempt_texts[chunk.choice] = text + chunk.text
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

    def _advance(self, choice: int, model_version: str) -> Delta | None:
        text, delivered = self._attempt_texts.get(choice, ""), self.delivered(choice)
        final = self.generation is not None
        if text == delivered or (delivered.startswith(text) and not final):
            return None
        self._delivered[choice] = text
        if text.startswith(delivered):
            return Delta(text[len(delivered) :], model_version, choice=choice)
        return Delta(text, model_version, restart=True, choice=choice)
