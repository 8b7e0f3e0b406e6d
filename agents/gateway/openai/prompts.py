"""From OpenAI's requests to a prompt's messages and options."""

from __future__ import annotations

from typing import Any

import msgspec

from agents.gateway.errors import ApiError
from agents.gateway.openai.requests import ChatRequest, CompletionRequest, Sampled
from schemas import limits
from schemas.events import Message, Retrieval, Sampling


def conversations_of(body: ChatRequest | CompletionRequest) -> list[list[Message]]:
    """One conversation, or one for each prompt of a completion."""
    if isinstance(body, CompletionRequest):
        return [[Message("user", text)] for text in body.texts]
    return [messages_of(body)]


def messages_of(body: ChatRequest) -> list[Message]:
    """The conversation, with a text for each turn."""
    return [
        Message("system" if turn.role == "developer" else turn.role, turn.text)
        for turn in body.messages
    ]


def sampling_of(body: ChatRequest | CompletionRequest, tokens_default: int) -> Sampling:
    """The options; lengths that are over a limit together are cut, as a model's window cuts them.

    Raises ApiError for options that exclude each other.
    """
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    options: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "seed": body.seed,
        "stop": stop,
        "repetition_penalty": body.repetition_penalty,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "n": body.n,
        **(_chat_options(body) if isinstance(body, ChatRequest) else _logprobs(body.logprobs)),
    }
    given = {name: value for name, value in options.items() if value is not None}
    tokens = _tokens_wanted(body) or tokens_default
    most = limits.MAX_TOKENS_MAX
    if given.get("logprobs"):
        most = limits.LOGPROBS_MAX // (1 + given.get("top_logprobs", 0))
    longest = min(most, limits.MAX_TOKENS_MAX) // given.get("n", 1)
    try:
        return Sampling(max_tokens=min(tokens, longest), **given)
    except ValueError as error:
        raise ApiError(400, f"{error}.", "invalid_request") from None


def retrieval_of(body: Sampled, top_k_default: int) -> Retrieval:
    """Which passages are found for it."""
    search = body.retrieval
    if search is None:
        return Retrieval(top_k=top_k_default)
    top_k = top_k_default if search.top_k is None else search.top_k
    return Retrieval(top_k, search.mode, search.score_floor, dict(search.filters))


def leaves_options(body: Sampled) -> bool:
    """Whether serving variants may choose what the request leaves out.

    Options that it names are seen in the prompt, unless they are those of a prompt that names none.
    """
    search, unnamed = body.retrieval, Retrieval()
    return body.temperature != Sampling().temperature and (
        search is None or search.top_k != unnamed.top_k
    )


def _tokens_wanted(body: Sampled) -> int | None:
    newer = body.max_completion_tokens if isinstance(body, ChatRequest) else None
    return newer or body.max_tokens


def _chat_options(body: ChatRequest) -> dict[str, Any]:
    options: dict[str, Any] = {"logprobs": body.logprobs}
    if body.logprobs:
        options["top_logprobs"] = body.top_logprobs
    form = body.response_format
    if form is None or form.type == "text":
        return options
    if form.type == "json_object":
        return options | {"json_object": True}
    if form.json_schema is None:
        raise ApiError(
            400, "json_schema is missing.", "invalid_request", "response_format.json_schema"
        )
    schema = form.json_schema.json_schema
    if len(msgspec.json.encode(schema)) > limits.JSON_SCHEMA_BYTES_MAX:
        most = f"{limits.JSON_SCHEMA_BYTES_MAX:,}"
        raise ApiError(
            400, f"A schema may have {most} bytes.", "invalid_request", "response_format"
        )
    return options | {"json_schema": schema}


def _logprobs(count: int | None) -> dict[str, Any]:
    """The older way: a number means both that they are wanted and how many."""
    return {} if count is None else {"logprobs": True, "top_logprobs": count}
