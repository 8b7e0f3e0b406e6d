"""Putting the chunks of one answer together: attempts, repeats and gaps. Pure, no Kafka."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import FoundPassage, Generation, TokenChunk


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer. `restart` means: forget what came before, `text` is all of it."""

    text: str
    model_version: str
    restart: bool = False


class Assembly:
    """The text of one generation as its chunks arrive, in any attempt.

    A worker that died is replaced by a new attempt that starts at index 0. As long as the new
    attempt repeats what was delivered, nothing is delivered twice; where it differs the reader is
    told to start over. A gap is bridged by the finished record in the last chunk.
    """

    def __init__(self) -> None:
        self.delivered = ""
        self.passages: list[FoundPassage] = []
        self.generation: Generation | None = None
        self._attempt = -1
        self._attempt_text = ""
        self._index = 0

    def add(self, chunk: TokenChunk) -> Delta | None:
        """The text that this chunk adds for the reader, or None."""
        if self.generation is not None:
            return None
        # The finished record is the truth whoever carries it, also a worker with a slow clock.
        if chunk.attempt < self._attempt and chunk.generation is None:
            return None
        if chunk.attempt > self._attempt:
            self._attempt, self._attempt_text, self._index = chunk.attempt, "", 0
        if chunk.index == self._index:
            self._index += 1
            self.passages = chunk.passages or self.passages
            self._attempt_text += chunk.text
        if chunk.generation is not None:
            self.generation = chunk.generation
            self.passages = chunk.generation.passages
            self._attempt_text = chunk.generation.text
        return self._advance(chunk.model_version, final=chunk.generation is not None)

    def _advance(self, model_version: str, final: bool) -> Delta | None:
        text, delivered = self._attempt_text, self.delivered
        if text == delivered or (delivered.startswith(text) and not final):
            return None
        self.delivered = text
        if text.startswith(delivered):
            return Delta(text[len(delivered) :], model_version)
        return Delta(text, model_version, restart=True)
