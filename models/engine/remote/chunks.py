"""Server-sent events of a streamed answer, and what they add up to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from models.engine.protocol import BASE_VERSION, FinishReason, Piece
from models.engine.remote.faults import ServerFault, fault_of_status, server_message

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Delta(msgspec.Struct):
    """What a chunk adds to the answer; the first often holds the role alone."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One of the answers; only one is asked for."""

    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Token counts so far, or of the whole."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatChunk(msgspec.Struct):
    """OpenAI's `chat.completion.chunk`, or an error in its place."""

    choices: list[Choice] = []
    usage: Usage | None = None
    object: str = ""
    error: Any = None


_decoder = msgspec.json.Decoder(ChatChunk)


@dataclass(slots=True)
class Tally:
    """An answer so far. Counts are the server's where it gives any, else chunks with text."""

    prompt_tokens: int
    model_version: str = BASE_VERSION
    completion_tokens: int = 0
    reason: str | None = None
    begun: bool = False

    def add(self, chunk: ChatChunk) -> Piece | None:
        """The piece that a chunk adds, if it has text."""
        text = "".join(choice.delta.content or "" for choice in chunk.choices)
        for choice in chunk.choices:
            self.reason = choice.finish_reason or self.reason
        if chunk.usage is not None:
            self.prompt_tokens = chunk.usage.prompt_tokens
            self.completion_tokens = chunk.usage.completion_tokens
        elif text:
            self.completion_tokens += 1
        if not text:
            return None
        self.begun = True
        return self._piece(text)

    def last(self) -> Piece:
        """The piece that ends the answer. Raises ServerFault when the server said no end."""
        if self.reason is None:
            raise ServerFault("The server broke off before the answer was complete.")
        if self.reason not in _REASONS:
            return self.failed(f"The server ended the answer with {self.reason!r}.")
        return self._piece("", _REASONS[self.reason])

    def failed(self, error: object) -> Piece:
        """The last piece of an answer that failed."""
        return self._piece("", "error", str(error))

    def _piece(self, text: str, reason: FinishReason | None = None, error: str = "") -> Piece:
        return Piece(
            text,
            self.completion_tokens,
            self.prompt_tokens,
            reason,
            error,
            model_version=self.model_version,
        )


async def chat_chunks(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[ChatChunk, None]:
    """The chunks in a response's body, to its end: only then can its connection be used again.

    Raises ServerFault or EventInvalid for an error in place of a chunk, ServerFault for junk.
    """
    done, rest = False, b""
    async with aclosing(body):
        async for data in body:
            # Not httpx' own lines: these also end at U+2028 and U+0085, which JSON may hold.
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                name, _, value = line.partition(b":")
                # Comments keep a quiet connection alive; other fields say nothing here.
                if name != b"data" or done:
                    continue
                done = value.strip() == b"[DONE]"
                if not done:
                    yield _chunk(value)


def _chunk(value: bytes) -> ChatChunk:
    try:
        chunk = _decoder.decode(value)
    except msgspec.DecodeError as error:
        raise ServerFault(
            f"The server sent something that is no chunk of an answer: {error}", transient=False
        ) from error
    if chunk.error is not None or chunk.object == "error":
        detail = chunk.error if isinstance(chunk.error, dict) else msgspec.json.decode(value)
        code = detail.get("code")
        raise fault_of_status(code if isinstance(code, int) else 500, server_message(value))
    return chunk
