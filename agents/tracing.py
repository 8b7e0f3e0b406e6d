"""One OpenTelemetry span a generation, with the GenAI attributes, where somebody collects them.

Spans go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, with OpenTelemetry's own settings;
without one nothing is recorded. They say how an answer was made, never what was asked or answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.events import Context, Generation, Sampling

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVICE: Final = "headwater-generate"
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

Attributes = dict[str, str | int | float | list[str]]


class Tracing:
    """Makes the spans of one worker; without a `processor` there are none."""

    def __init__(self, processor: SpanProcessor | None, remote: bool = False) -> None:
        """`remote`: the model runs in another process."""
        self._kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._processor = processor
        if processor is not None:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider

            name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE)
            provider = TracerProvider(resource=Resource.create({"service.name": name}))
            provider.add_span_processor(processor)
            self._tracer = provider.get_tracer("headwater")

    @contextmanager
    def generation(self, context: Context, model: str, parent: str | None) -> Iterator[Span]:
        """The span of the block, a child of the W3C traceparent `parent`."""
        carrier = {} if parent is None else {"traceparent": parent}
        span = self._tracer.start_span(
            f"{_OPERATION} {model}",
            TraceContextTextMapPropagator().extract(carrier),
            self._kind,
            _asked(context, model),
        )
        try:
            yield span
        except BaseException as error:
            # Cancelled: another worker makes this answer, in a span of its own.
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    async def close(self) -> None:
        """Sends what was recorded."""
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown)


def make_tracing(remote: bool) -> Tracing:
    """Spans for the collector that the environment names, if it names one."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return Tracing(None)
    # Imported late: most workers are not traced.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter()), remote)


def traceparent(span: Span) -> str | None:
    """What records made within a span carry, if it is recorded."""
    if not span.is_recording():
        return None
    place = span.get_span_context()
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


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
