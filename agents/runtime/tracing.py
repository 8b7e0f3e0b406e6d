"""OpenTelemetry's spans of one worker, where somebody collects them.

Spans go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, with OpenTelemetry's own settings;
without one nothing is recorded. They say what was done and how long it took: ids, versions and
counts, never what people write, and never who they are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.topics import Topic

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.sdk.trace import SpanProcessor

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROPAGATOR: Final = TraceContextTextMapPropagator()

Attributes = dict[str, str | int | float | list[str]]


class Tracing:
    """Makes the spans of one worker; without a `processor` there are none."""

    def __init__(self, processor: SpanProcessor | None, service: str = "headwater") -> None:
        self.tracer: trace.Tracer | None = None
        self._processor = processor
        if processor is not None:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider

            name = os.environ.get("OTEL_SERVICE_NAME", service)
            provider = TracerProvider(resource=Resource.create({"service.name": name}))
            provider.add_span_processor(processor)
            self.tracer = provider.get_tracer("headwater")

    @property
    def on(self) -> bool:
        """Whether anything is recorded: what is costly to say need not be said otherwise."""
        return self.tracer is not None

    def start(
        self,
        name: str,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Sequence[str] = (),
    ) -> Span:
        """A span, to be ended by the caller: a child of the W3C traceparent `parent`.

        `links` are traceparents of what else it came of.
        """
        if self.tracer is None:
            return INVALID_SPAN
        return self.tracer.start_span(name, _context(parent), kind, attributes, _links(links))

    def process(self, topic: Topic, parent: str | None, links: Sequence[str] = ()) -> Span:
        """The span of dealing with a record of a topic."""
        if self.tracer is None:
            return INVALID_SPAN
        told: Attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic.name,
        }
        return self.start(f"process {topic.name}", parent, SpanKind.CONSUMER, told, links)

    async def close(self) -> None:
        """Sends what was recorded."""
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown)


def make_tracing(agent: str) -> Tracing:
    """Spans for the collector that the environment names, if it names one."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return Tracing(None)
    # Imported late: most workers are not traced.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter()), f"headwater-{agent}")


def _context(parent: str | None) -> TraceContext:
    return _PROPAGATOR.extract({} if parent is None else {"traceparent": parent})


def _links(parents: Sequence[str]) -> list[Link]:
    found = (trace.get_current_span(_context(p)).get_span_context() for p in parents)
    return [Link(place) for place in found if place.is_valid]
