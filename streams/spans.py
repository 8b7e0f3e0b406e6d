"""The SDK's part of a trace: one span for each record that is sent, where the application traces.

OpenTelemetry is imported only where somebody hands a tracer in: the SDK does not depend on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from schemas.topics import FEEDBACK, PROMPTS, Topic

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

# Prompts whose feedback still finds their trace; that of older ones is found by join.
_PROMPTS_MAX: Final = 10_000


class SendSpans:
    """The spans of one client."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._prompts: OrderedDict[str, str] = OrderedDict()

    @contextmanager
    def sending(self, topic: Topic, key: str, parent: str | None) -> Iterator[str | None]:
        """The traceparent for a record that is sent in the block, whose span this is."""
        span = self._start(topic, key, parent)
        try:
            yield traceparent(span) or parent
        except BaseException as error:
            # Its name alone: messages quote what people wrote.
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            span.end()

    def _start(self, topic: Topic, key: str, parent: str | None) -> Span:
        """Without `parent`, a traceparent, it is a child of the application's
        current span; feedback is one of the prompt that this client sent."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if topic is FEEDBACK:
            parent = parent or self._prompts.get(key)
        context = None
        if parent is not None:
            context = TraceContextTextMapPropagator().extract({"traceparent": parent})
        span = self._tracer.start_span(
            f"send {topic.name}",
            context,
            SpanKind.PRODUCER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": topic.name,
            },
        )
        if topic in (PROMPTS, FEEDBACK):
            span.set_attribute("headwater.prompt_id", key)
        carried = traceparent(span)
        if topic is PROMPTS and carried is not None:
            self._prompts[key] = carried
            if len(self._prompts) > _PROMPTS_MAX:
                self._prompts.popitem(last=False)
        return span


def traceparent(span: Span) -> str | None:
    """What records made within a span carry, if it is recorded."""
    if not span.is_recording():
        return None
    place = span.get_span_context()
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"
