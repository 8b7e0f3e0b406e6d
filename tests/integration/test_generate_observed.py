"""What an operator sees of a generate worker: a span for each answer, and a page of metrics."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from streams_by_hand import HandStream

from agents.generate import Generate
from agents.runtime.tracing import Tracing
from agents.settings import GenerateSettings
from infra.ports import free_ports
from models.engine.options import TorchEngineOptions
from models.engine.torch_engine import TorchEngine
from schemas import codec, headers
from schemas.errors import SettingsInvalid
from schemas.events import Context, Message, Prompt, Sampling
from schemas.topics import CONTEXTS, GENERATIONS
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def generating(
    kafka: KafkaSettings, model: Path, spans: InMemorySpanExporter, **settings: object
) -> AsyncIterator[HandStream]:
    """An agent that has partition 0."""
    engine = TorchEngine(TorchEngineOptions(model.parent / "cache", str(model), slots=4))
    chosen = GenerateSettings(**settings)  # type: ignore[arg-type]
    tracing = Tracing(SimpleSpanProcessor(spans))
    generate, stream = Generate(kafka, engine, chosen, tracing), HandStream()
    generate.owns({0})
    tasks = [
        asyncio.create_task(generate.work()),
        asyncio.create_task(generate.intake.fill(stream)),  # type: ignore[arg-type]
    ]
    ready = asyncio.create_task(generate.ready.wait())
    try:
        await asyncio.wait({ready, tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
        yield stream
    finally:
        ready.cancel()
        await generate.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(ready, *tasks, return_exceptions=True)


def context(sampling: Sampling) -> bytes:
    prompt = Prompt([Message("user", "a secret")], "p", sampling, conversation_id="c")
    return codec.encode(Context("p", prompt, [], 1, 1))


async def until_acknowledged(stream: HandStream) -> None:
    async with asyncio.timeout(30):
        while not stream.acknowledged:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_answer_is_one_span_between_the_context_and_its_records(
    kafka: KafkaSettings, tiny_model: Path
) -> None:
    spans = InMemorySpanExporter()
    async with generating(kafka, tiny_model, spans) as stream:
        asked = context(Sampling(max_tokens=8, n=2, temperature=0.5))
        stream.put(kafka.topic_name(CONTEXTS), 0, 0, asked, [("traceparent", TRACE.encode())])
        await until_acknowledged(stream)
    (span,) = spans.get_finished_spans()
    told = dict(span.attributes or {})
    assert (span.name, span.kind) == (f"chat {tiny_model.name}", SpanKind.INTERNAL)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == tiny_model.name
    assert (told["gen_ai.request.max_tokens"], told["gen_ai.request.choice.count"]) == (8, 2)
    assert "gen_ai.request.top_p" not in told
    assert len(told["gen_ai.response.finish_reasons"]) == 2  # type: ignore[arg-type]
    assert told["gen_ai.usage.input_tokens"] > 0  # type: ignore[operator]
    assert 0 < told["gen_ai.usage.output_tokens"] <= 16  # type: ignore[operator]
    assert (told["gen_ai.conversation.id"], told["headwater.model_version"]) == ("c", "base")
    assert "secret" not in span.to_json()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == TRACE.split("-")[2]
    place = span.get_span_context()
    assert place is not None
    async with Subscription(kafka, GENERATIONS, since="earliest") as subscription:
        (record,) = [record async for record in subscription.present()]
    carried = headers.header(record.headers, "traceparent")
    assert carried == f"00-{TRACE.split('-')[1]}-{place.span_id:016x}-01"


async def test_the_page_has_the_metrics_of_engine_and_updates(
    kafka: KafkaSettings, tiny_model: Path
) -> None:
    (port,) = free_ports(1)
    spans = InMemorySpanExporter()
    async with generating(kafka, tiny_model, spans, metrics_port=port) as stream:
        stream.put(kafka.topic_name(CONTEXTS), 0, 0, context(Sampling(max_tokens=8)))
        await until_acknowledged(stream)
        page = await asyncio.to_thread(fetched, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(SettingsInvalid, match=f"127.0.0.1:{port}.*METRICS_PORT"):
            async with generating(kafka, tiny_model, spans, metrics_port=port):
                pass
    assert 'headwater:request_success_total{finished_reason="length"} 1.0' in page
    assert "headwater:time_to_first_token_seconds_count 1.0" in page
    assert "headwater:num_requests_running 0.0" in page
    assert "headwater:model_updates_refused_total 0.0" in page
    # The port is free again.
    async with generating(kafka, tiny_model, spans, metrics_port=port):
        pass


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read(), "utf-8")
