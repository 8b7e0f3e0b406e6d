"""Spans leave the process for the collector that the environment names, and only then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.trace import SpanContext

from agents.generation_span import describe, generation_span
from agents.tracing import make_tracing
from schemas.events import Context, Generation, Message, Prompt, Sampling, Timings, Usage
from streams.spans import traceparent

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CONTEXT = Context("p", Prompt([Message("user", "x")], "p", Sampling(seed=7)), [], 1, 1)
FAILED = Generation(
    "g", "p", "", "error", "m", "v1", 1, [], [], Usage(3, 0), Timings(1, 1, 1, 2), error="why"
)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes OTLP over HTTP; its address, and the bodies that came."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.asyncio
async def test_a_collector_that_is_named_gets_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (address, bodies):
        monkeypatch.setenv(ENDPOINT, address)
        tracing = make_tracing("generate")
        with generation_span(tracing, CONTEXT, "m", None, remote=True) as span:
            carried = traceparent(span)
            describe(span, FAILED)
        await tracing.close()
    place: SpanContext = span.get_span_context()
    assert carried is not None
    assert carried[:52] == f"00-{place.trace_id:032x}-{place.span_id:016x}"
    (body,) = bodies
    for said in (b"chat m", b"headwater-generate", b"gen_ai.request.seed", b"generation_failed"):
        assert said in body
    # Defaults are left out.
    assert b"gen_ai.request.temperature" not in body


@pytest.mark.asyncio
async def test_without_one_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    tracing = make_tracing("generate")
    parent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    with generation_span(tracing, CONTEXT, "m", parent) as span:
        assert traceparent(span) is None
        describe(span, FAILED)
    await tracing.close()
