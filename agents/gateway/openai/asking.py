"""One request's answer: asked anew, or read on from where a stream broke."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from agents.gateway.errors import AnswerCancelled, as_api_error
from agents.gateway.openai.positions import Position, Sent, Signer
from agents.gateway.openai.progress import Progress
from agents.gateway.openai.shapes import Shape, answers_of
from schemas.errors import GenerationFailed, HeadwaterError
from schemas.events import Generation
from streams.answer import Answer

_DONE: Final = b"data: [DONE]\n\n"
_ENCODER: Final = msgspec.json.Encoder()
# Characters that end a line for some clients, though neither for JSON nor for server-sent events.
_LINE_ENDS: Final = tuple((c.encode(), b"\\u%04x" % ord(c)) for c in "\x85\u2028\u2029")


@dataclass(slots=True)
class Asking:
    """An answer on its way to its caller. `counts_usage` asks for the event with the usage."""

    answer: Answer
    shape: Shape
    choices: int
    signer: Signer
    position: Position
    resumed: bool
    counts_usage: bool

    async def whole(self) -> dict[str, Any]:
        """The finished answer. Raises as `Answer.finished`, and AnswerCancelled."""
        generation = await self.answer.finished()
        check_finished(generation)
        return self.shape.whole(generation)

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, each with the id from which one can go on after it.

        An error comes as an event too, for the status was sent long ago; nothing follows it.
        """
        try:
            async for event in self._events():
                yield event
        except HeadwaterError as error:
            yield b"data: %b\n\n" % _encode(as_api_error(error).body())
        else:
            yield _DONE

    async def _events(self) -> AsyncIterator[bytes]:
        progress = Progress(self.choices, self.position.sent)
        if not self.resumed and self.shape.chat:
            for choice in range(self.choices):
                yield self._event(self.shape.role(choice), self.position)
        position = self.position
        async for delta in self.answer:
            new = progress.take(delta)
            if new is not None:
                position = msgspec.structs.replace(position, sent=progress.sent())
                chunk = self.shape.delta(delta.choice, *new, delta.model_version)
                yield self._event(chunk, position)
        generation = self.answer.generation
        assert generation is not None
        check_finished(generation)
        progress.finish()
        for number, chunk in islice(enumerate(self._ending(generation)), position.ended, None):
            position = msgspec.structs.replace(position, sent=progress.sent(), ended=number + 1)
            yield self._event(chunk, position)

    def _ending(self, generation: Generation) -> list[dict[str, Any]]:
        """What comes after the last text."""
        ends = [self.shape.finish(choice, generation) for choice in range(self.choices)]
        return [*ends, self.shape.usage(generation)] if self.counts_usage else ends

    def _event(self, chunk: dict[str, Any], position: Position) -> bytes:
        event_id = self.signer.encode(position).encode()
        return b"id: %b\ndata: %b\n\n" % (event_id, _encode(chunk))


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


def _encode(chunk: dict[str, Any]) -> bytes:
    content = _ENCODER.encode(chunk)
    for raw, escaped in _LINE_ENDS:
        content = content.replace(raw, escaped)
    return content
