"""Server-sent events of a streamed answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from models.engine.remote.faults import ServerFault, fault_of_status, server_message


class Delta(msgspec.Struct):
    """What a chunk adds to the answer; the first often holds the role alone."""

    content: str | None = None


class Token(msgspec.Struct):
    """A token that was possible. Its text alone may not tell its bytes."""

    token: str
    logprob: float
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None


class ChosenToken(Token):
    """A token of the answer, with the likeliest in its place in any order."""

    top_logprobs: list[Token] = []


class Logprobs(msgspec.Struct):
    """What is told of the tokens of a chunk, if it was asked for."""

    content: list[ChosenToken] | None = None


class Choice(msgspec.Struct):
    """One of the answers; only one is asked for.

    `stop_reason` is vLLM's: beside finish_reason "stop" the stop string, or None or a number where
    an end token was chosen.
    """

    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET


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
