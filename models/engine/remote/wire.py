"""A request as a server's dialect of /v1/chat/completions has it.

Servers differ in which sampling options they know, in what these are called, and in what they do
when one is left out (vLLM reads the model's generation_config.json, llama-cpp-python cuts with
min_p 0.05). So every option that a dialect knows is sent, always, and one that it does not know is
refused, since most servers ignore such fields without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from models.engine.json_schema import followable
from models.engine.protocol import Message, SamplingParams
from schemas.errors import EventInvalid

# From the options to the fields of the body that say one of them.
Wire = Callable[[SamplingParams], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`options` by their name in SamplingParams; `always` is sent beside them."""

    name: str
    options: Mapping[str, Wire]
    always: Mapping[str, Any]


def _named(option: str, name: str = "") -> Wire:
    """An option that means the same on both sides, by its name at the server."""
    return lambda sampling: {name or option: getattr(sampling, option)}


def _logprobs(sampling: SamplingParams) -> dict[str, Any]:
    # Together: OpenAI refuses top_logprobs alone, llama-cpp-python gives nothing without it.
    if not sampling.logprobs:
        return {}
    return {"logprobs": True, "top_logprobs": sampling.top_logprobs}


def _json_object(sampling: SamplingParams) -> dict[str, Any]:
    return {"response_format": {"type": "json_object"}} if sampling.json_object else {}


def _json_schema(sampling: SamplingParams) -> dict[str, Any]:
    """OpenAI's form, which vLLM has understood under each of its own names for it."""
    if sampling.json_schema is None:
        return {}
    # Without `strict` OpenAI takes the schema for a wish.
    answer = {"name": "answer", "schema": _schema(sampling.json_schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": answer}}


def _llama_json_schema(sampling: SamplingParams) -> dict[str, Any]:
    if sampling.json_schema is None:
        return {}
    return {"response_format": {"type": "json_object", "schema": _schema(sampling.json_schema)}}


def _schema(text: str) -> Any:
    # The same schemas are refused whichever engine answers.
    return json.loads(followable(text))


_COMMON: Final[Mapping[str, Wire]] = {
    "max_tokens": _named("max_tokens"),
    "temperature": _named("temperature"),
    "top_p": _named("top_p"),
    "seed": _named("seed"),
    "frequency_penalty": _named("frequency_penalty"),
    "presence_penalty": _named("presence_penalty"),
    "stop": lambda sampling: {"stop": list(sampling.stop)} if sampling.stop else {},
    "logprobs": _logprobs,
    "top_logprobs": _logprobs,
    "json_object": _json_object,
    "json_schema": _json_schema,
}
# llama.cpp's seeds have 32 bits, of which the highest means a random one.
_LLAMA_SEEDS: Final = 2**32 - 1

DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": Dialect("openai", _COMMON, {"stream_options": {"include_usage": True}}),
    "vllm": Dialect(
        "vllm",
        {
            **_COMMON,
            "min_p": _named("min_p"),
            "repetition_penalty": _named("repetition_penalty"),
            # Older versions refuse 0.
            "top_k": lambda sampling: {"top_k": sampling.top_k or -1},
        },
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
    "llama-cpp-python": Dialect(
        "llama-cpp-python",
        {
            **_COMMON,
            "min_p": _named("min_p"),
            "top_k": _named("top_k"),
            "seed": lambda sampling: {"seed": sampling.seed % _LLAMA_SEEDS},
            "repetition_penalty": _named("repetition_penalty", "repeat_penalty"),
            "json_schema": _llama_json_schema,
        },
        {},
    ),
}
# What `owned_by` in the list of models says of a server; all others speak "openai".
OWNERS: Final = {"vllm": "vllm", "me": "llama-cpp-python"}


def chat_body(
    dialect: Dialect, messages: tuple[Message, ...], sampling: SamplingParams
) -> dict[str, Any]:
    """The request's body but for the model. Raises EventInvalid for an option that the dialect does
    not know, and for a JSON Schema that cannot be followed.
    """
    body: dict[str, Any] = {
        "messages": [dict(message) for message in messages],
        "stream": True,
        **dialect.always,
    }
    unknown = []
    for option in fields(sampling):
        if option.name in dialect.options:
            body |= dialect.options[option.name](sampling)
        elif getattr(sampling, option.name) != option.default:
            unknown.append(option.name)
    if unknown:
        raise EventInvalid(
            f"The server ({dialect.name}) does not know {', '.join(unknown)}.",
            "Leave that out, or set HEADWATER_GENERATE_REMOTE_SERVER if it is of another kind.",
        )
    return body
