"""One prompt's answer: asked anew, or read on from where a stream broke."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from agents.gateway.errors import AnswerCancelled
from agents.gateway.openai.positions import Position, Sent
from agents.gateway.openai.progress import Progress
from agents.gateway.openai.shapes import Shape, answers_of
from schemas.errors import GenerationFailed
from schemas.events import Generation
from streams.answer import Answer

# A piece of a stream, and where a reader is who has it.
Step = tuple[dict[str, Any], Position]


@dataclass(slots=True)
class Asking:
    """An answer on its way to its caller; `position` is where they are."""

    answer: Answer
    shape: Shape
    position: Position
    resumed: bool

    @property
    def choices(self) -> int:
        """How many answers the prompt wants."""
        return len(self.position.sent)

    async def finished(self) -> Generation:
        """The finished record. Raises as `Answer.finished`, and AnswerCancelled."""
        generation = await self.answer.finished()
        check_finished(generation)
        return generation

    async def steps(self) -> AsyncIterator[Step]:
        """What a reader lacks. Raises as `finished`, and AnswerChanged."""
        progress = Progress(self.choices, self.position.sent)
        if not self.resumed and self.shape.chat:
            for choice in range(self.choices):
                yield self.shape.role(choice), self.position
        async for delta in self.answer:
            new = progress.take(delta)
            if new is not None:
                self._moved(progress, 0)
                yield self.shape.delta(delta.choice, *new, delta.model_version), self.position
        generation = self.answer.generation
        assert generation is not None
        check_finished(generation)
        progress.finish()
        for choice in islice(range(self.choices), self.position.ended, None):
            self._moved(progress, 1)
            yield self.shape.finish(choice, generation), self.position

    def _moved(self, progress: Progress, ended: int) -> None:
        sent, ended = progress.sent(), self.position.ended + ended
        self.position = msgspec.structs.replace(self.position, sent=sent, ended=ended)


def first_position(answer: Answer, choices: int) -> Position:
    """That of a reader who has nothing yet."""
    assert answer.place is not None and answer.prompted is not None
    prompted = answer.prompted.partition, answer.prompted.offset
    sent = (Sent(),) * choices
    return Position(answer.prompt_id, int(time.time()), answer.place, prompted, sent)


def check_finished(generation: Generation) -> None:
    """Raises GenerationFailed or AnswerCancelled where a choice is no whole answer."""
    for _, reason, _ in answers_of(generation):
        if reason == "cancelled":
            raise AnswerCancelled("The prompt was cancelled before its answer was complete.")
        if reason == "error":
            errors = [generation.error, *(one.error for one in generation.alternatives)]
            raise GenerationFailed(
                f"No answer: {next(filter(None, errors), 'the engine failed')}",
                "Change the prompt.",
            )
