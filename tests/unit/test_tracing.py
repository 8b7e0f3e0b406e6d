"""Spans leave the process for the collector that the environment names, and only then."""

from __future__ import annotations

import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind
from otlp import collector

from agents.generation.span import describe, generation_span
from agents.runtime.tracing import Tracing, make_tracing
from schemas import headers
from schemas.events import Context, Generation, Message, Prompt, Sampling, Timings, Usage
from schemas.topics import DOCUMENTS, FEEDBACK, PROMPTS
from streams.spans import SendSpans, traceparent

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CONTEXT = Context("p", Prompt([Message("user", "x")], "p", Sampling(seed=7)), [], 1, 1)
FAILED = Generation(
    "g", "p", "", "error", "m", "v1", 1, [], [], Usage(3, 0), Timings(1, 1, 1, 2), error="why"
)
PARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
OTHER = "00-" + "3" * 32 + "-" + "4" * 16 + "-01"


@pytest.mark.asyncio
async def test_a_collector_that_is_named_gets_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as collected:
        monkeypatch.setenv(ENDPOINT, collected.address)
        tracing = make_tracing("generate")
        with generation_span(tracing, CONTEXT, "m", None, remote=True) as span:
            carried = traceparent(span)
            describe(span, FAILED)
        await tracing.close()
    place: SpanContext = span.get_span_context()
    assert carried is not None
    assert carried[:52] == f"00-{place.trace_id:032x}-{place.span_id:016x}"
    (found,) = collected.spans
    assert (found.name, found.service) == ("chat m", "headwater-generate")
    assert "gen_ai.request.seed" in found.attributes
    assert "generation_failed" in found.attributes["error.type"]
    # Defaults are left out.
    assert "gen_ai.request.temperature" not in found.attributes


@pytest.mark.asyncio
async def test_what_a_record_came_of_is_its_parent_and_its_links() -> None:
    spans = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(spans))
    tracing.process(FEEDBACK, PARENT, [OTHER, "nonsense"]).end()
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("process feedback", SpanKind.CONSUMER)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == "1" * 32
    assert [f"{link.context.trace_id:032x}" for link in span.links] == ["3" * 32]


def sends() -> tuple[SendSpans, InMemorySpanExporter]:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return SendSpans(provider.get_tracer("an application")), spans


def test_feedback_is_sent_in_the_trace_of_its_prompt() -> None:
    sending, spans = sends()
    with sending.sending(PROMPTS, "p", PARENT) as prompt:
        pass
    with sending.sending(FEEDBACK, "p", None) as feedback, sending.sending(FEEDBACK, "q", None):
        pass
    assert headers.trace_id(prompt) == headers.trace_id(feedback) == "1" * 32
    assert prompt != feedback
    sent, other, rated = spans.get_finished_spans()
    assert (sent.name, sent.kind) == ("send prompts", SpanKind.PRODUCER)
    assert rated.parent is not None
    assert rated.parent.span_id == sent.context.span_id
    assert other.context.trace_id != sent.context.trace_id


def test_a_send_that_fails_says_how_and_quotes_nobody() -> None:
    sending, spans = sends()
    with pytest.raises(ValueError, match="secret"), sending.sending(DOCUMENTS, "ada", None):
        raise ValueError("a secret")
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert "secret" not in span.to_json()
    assert "ada" not in span.to_json()


@pytest.mark.asyncio
async def test_without_one_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    tracing = make_tracing("generate")
    assert tracing.tracer is None
    with generation_span(tracing, CONTEXT, "m", PARENT) as span:
        assert traceparent(span) is None
        describe(span, FAILED)
    await tracing.close()


def test_without_one_a_record_costs_next_to_nothing() -> None:
    tracing, times = Tracing(None), 20_000
    began = time.perf_counter_ns()
    for _ in range(times):
        span = tracing.process(PROMPTS, PARENT)
        span.set_attribute("headwater.prompt_id", "p")
        traceparent(span)
        span.end()
    # Some 300 ns; a hop through Kafka takes over 2,000,000.
    assert (time.perf_counter_ns() - began) / times < 20_000
