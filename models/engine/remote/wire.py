"""A request as a server's dialect of /v1/chat/completions has it.

Servers differ in which sampling options they know, in what these are called, and in what they do
when one is left out (vLLM reads the model's generation_config.json, llama-cpp-python cuts with
min_p 0.05). So every option that a dialect knows is sent, always, and one that it does not know is
refused, since most servers ignore such fields without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from models.engine.protocol import Message, SamplingParams
from schemas.errors import EventInvalid

# From an option's value to the fields of the body that say it.
Wire = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`options` by their name in SamplingParams; `always` is sent beside them, and gives way."""

    name: str
    options: Mapping[str, Wire]
    always: Mapping[str, Any]


def _named(name: str) -> Wire:
    return lambda value: {name: value}


_COMMON: Final[Mapping[str, Wire]] = {
    "max_tokens": _named("max_tokens"),
    "temperature": _named("temperature"),
    "top_p": _named("top_p"),
    "seed": _named("seed"),
    "stop": lambda stop: {"stop": list(stop)} if stop else {},
}
# llama.cpp's seeds have 32 bits, of which the highest means a random one.
_LLAMA_SEEDS: Final = 2**32 - 1

DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": Dialect("openai", _COMMON, {"stream_options": {"include_usage": True}}),
    "vllm": Dialect(
        "vllm",
        {
            **_COMMON,
            # Older versions refuse 0.
            "top_k": lambda top_k: {"top_k": top_k or -1},
        },
        {
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        },
    ),
    "llama-cpp-python": Dialect(
        "llama-cpp-python",
        {
            **_COMMON,
            "top_k": _named("top_k"),
            "seed": lambda seed: {"seed": seed % _LLAMA_SEEDS},
        },
        {"min_p": 0.0, "repeat_penalty": 1.0},
    ),
}
# What `owned_by` in the list of models says of a server; all others speak "openai".
OWNERS: Final = {"vllm": "vllm", "me": "llama-cpp-python"}


def chat_body(
    dialect: Dialect, model: str, messages: tuple[Message, ...], sampling: SamplingParams
) -> dict[str, Any]:
    """The request's body. Raises EventInvalid for an option that the dialect does not know."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in messages],
        "stream": True,
        **dialect.always,
    }
    unknown = []
    for option in fields(sampling):
        value = getattr(sampling, option.name)
        if option.name in dialect.options:
            body |= dialect.options[option.name](value)
        elif value != option.default:
            unknown.append(option.name)
    if unknown:
        raise EventInvalid(
            f"The server ({dialect.name}) does not know {', '.join(unknown)}.",
            "Leave that option out, or name the server's kind if it was not recognised.",
        )
    return body
