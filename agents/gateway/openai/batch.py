"""The answers to one request: one for each of its prompts, with choices numbered through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.gateway.errors import as_api_error
from agents.gateway.openai.asking import Asking, Step
from agents.gateway.openai.merging import merged
from agents.gateway.openai.positions import Position, Signer
from schemas.errors import HeadwaterError

_DONE: Final = b"data: [DONE]\n\n"
_ENCODER: Final = msgspec.json.Encoder()
# Characters that end a line for some clients, though neither for JSON nor for server-sent events.
_LINE_ENDS: Final = tuple((c.encode(), b"\\u%04x" % ord(c)) for c in "\x85\u2028\u2029")


@dataclass(slots=True)
class Batch:
    """What a caller waits for. `counts_usage` asks for the event with the usage."""

    askings: list[Asking]
    signer: Signer
    counts_usage: bool

    @property
    def unfinished(self) -> list[str]:
        """The prompts that are not answered yet."""
        askings = [asking for asking in self.askings if asking.answer.generation is None]
        return [asking.answer.prompt_id for asking in askings]

    async def whole(self) -> dict[str, Any]:
        """The finished answers. Raises as `Asking.finished`."""
        waiting = [asyncio.ensure_future(asking.finished()) for asking in self.askings]
        try:
            return self.askings[0].shape.whole(await asyncio.gather(*waiting))
        finally:
            # Of several, one may have failed: nobody waits for the others.
            for one in waiting:
                one.cancel()

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
        # Not those of the askings: of several, some may be ahead of what was sent.
        positions = [asking.position for asking in self.askings]
        async for number, (chunk, position) in self._steps():
            positions[number] = position
            yield self._event(chunk, positions)
        # The usage counts as one more end of the first prompt.
        choices, first = self.askings[0].choices, positions[0]
        if self.counts_usage and first.ended == choices:
            positions[0] = msgspec.structs.replace(first, ended=choices + 1)
            found = [asking.answer.generation for asking in self.askings]
            usage = self.askings[0].shape.usage([one for one in found if one is not None])
            yield self._event(usage, positions)

    async def _steps(self) -> AsyncIterator[tuple[int, Step]]:
        if len(self.askings) > 1:
            async for step in merged([asking.steps() for asking in self.askings]):
                yield step
            return
        # No task and no queue for the usual one.
        async for one in self.askings[0].steps():
            yield 0, one

    def _event(self, chunk: dict[str, Any], positions: list[Position]) -> bytes:
        event_id = self.signer.encode(positions).encode()
        return b"id: %b\ndata: %b\n\n" % (event_id, _encode(chunk))


def _encode(chunk: dict[str, Any]) -> bytes:
    content = _ENCODER.encode(chunk)
    for raw, escaped in _LINE_ENDS:
        content = content.replace(raw, escaped)
    return content
