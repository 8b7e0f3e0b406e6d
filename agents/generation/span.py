"""The span of a generation, with OpenTelemetry's GenAI attributes: how an answer was made, never
what was asked or answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from agents.runtime.tracing import Attributes, Tracing
from schemas.events import Context, Generation, Sampling

# https://opentelemetry.io/docs/specs/semconv/gen-ai/: still in development, so all names are here.
_OPERATION: Final = "chat"
_REQUEST: Final = {
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.choice.count": "n",
    "gen_ai.request.seed": "seed",
    "gen_ai.request.stop_sequences": "stop",
}


@contextmanager
def generation_span(
    tracing: Tracing, context: Context, model: str, parent: str | None, *, remote: bool = False
) -> Iterator[Span]:
    """The span of the block, a child of the W3C traceparent `parent`; `remote`: the model runs in
    another process."""
    kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
    asked = _asked(context, model) if tracing.on else {}
    span = tracing.start(f"{_OPERATION} {model}", parent, kind, asked)
    try:
        yield span
    except BaseException as error:
        # Cancelled: another worker makes this answer, in a span of its own.
        span.set_attribute("error.type", type(error).__name__)
        raise
    finally:
        span.end()


def describe(span: Span, generation: Generation) -> None:
    """Adds what is known of a finished generation."""
    if not span.is_recording():
        return
    reasons = [generation.finish_reason, *(each.finish_reason for each in generation.alternatives)]
    attributes: Attributes = {
        "gen_ai.response.id": generation.generation_id,
        "gen_ai.response.model": generation.model,
        "gen_ai.response.finish_reasons": list(reasons),
        "gen_ai.usage.input_tokens": generation.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": generation.usage.completion_tokens,
        "headwater.model_version": generation.model_version,
    }
    first_ms, timings = generation.timings.first_token_ms, generation.timings
    if first_ms is not None:
        seconds = (first_ms - timings.started_ms) / 1000
        attributes["gen_ai.response.time_to_first_chunk"] = seconds
    span.set_attributes(attributes)
    if "error" in reasons:
        span.set_attribute("error.type", "generation_failed")
        span.set_status(Status(StatusCode.ERROR))


def _asked(context: Context, model: str) -> Attributes:
    """What is known of a generation when it begins; options that hold their default are left out,
    but for the one that bounds it."""
    sampling, usual = context.prompt.sampling, Sampling()
    found: Attributes = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.provider.name": "headwater",
        "gen_ai.request.model": model,
        "headwater.prompt_id": context.prompt_id,
    }
    for name, option in _REQUEST.items():
        value = getattr(sampling, option)
        if option == "max_tokens" or value != getattr(usual, option):
            found[name] = value
    if sampling.json_object or sampling.json_schema is not None:
        found["gen_ai.output.type"] = "json"
    if context.prompt.conversation_id is not None:
        found["gen_ai.conversation.id"] = context.prompt.conversation_id
    return found
