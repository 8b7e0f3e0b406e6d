"""One trace from a prompt to the update that its feedback completed, linked to other examples'."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from broker import own_river, running
from learning_agents import learning_parts
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otlp import Collected, Collector, collector
from workers import agent_parts

from infra.local_kafka import LocalKafka
from schemas.events import PROGRESSIVE, ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.client import Client
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(300)]

SETTINGS = {
    "HEADWATER_LEARN_MECHANISM": "none",
    "HEADWATER_LEARN_COHORT_SIZE": "2",
    "HEADWATER_LEARN_GATE_TOLERANCE": "100",
}
SECRETS = ("How deep is the secret river", "Nine secret metres", "ada the user", "ben the user")


async def live_through_it(kafka: KafkaSettings, address: str) -> ModelUpdate:
    """Two people's prompts, answers and corrections, and the version that learned from both."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{address}/v1/traces")))
    tracer = provider.get_tracer("an application")
    async with (
        asyncio.timeout(200),
        Client(kafka, tracer=tracer) as client,
        Subscription(kafka, MODEL_UPDATES, since="earliest") as updates,
    ):
        for prompt_id, user_id in (("brook", SECRETS[2]), ("river", SECRETS[3])):
            answer = await client.ask(f"{SECRETS[0]}?", user_id=user_id, prompt_id=prompt_id)
            await answer.finished()
            await client.feedback(prompt_id=prompt_id, correction=SECRETS[1], user_id=user_id)
        found = []
        async for update in updates:
            found.append(update)
            break
        # Nothing is private here, so what the correction cost before is told as well.
        async for statistic in client.subscribe("analytics", since="earliest"):
            if statistic.name == PROGRESSIVE and statistic.labels["learner"] == "adapter":
                break
    provider.shutdown()
    return found[0]


def until_collected(collected: Collector, wanted: set[str]) -> list[Collected]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        spans = collected.spans
        if wanted <= {span.name for span in spans}:
            return spans
        time.sleep(0.1)
    raise AssertionError(f"only these came: {sorted({span.name for span in collected.spans})}")


def trace_of(spans: list[Collected], prompt_id: str) -> str:
    """The trace that begins with an application's prompt."""
    (sent,) = (
        span
        for span in spans
        if span.name == "send prompts" and prompt_id in span.attributes["headwater.prompt_id"]
    )
    return sent.trace_id


def test_one_trace_holds_a_prompt_its_answer_its_feedback_and_the_update_it_completed(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    with collector() as collected:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collected.address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        parts = [
            *agent_parts(kafka, tiny_model, ("retrieve", "generate")),
            *learning_parts(kafka, tiny_model, tmp_path, SETTINGS),
        ]
        traced = [replace(part, env={**part.env, **told}) for part in parts]
        with running(traced, tmp_path):
            update = asyncio.run(live_through_it(kafka, collected.address))
            chat = f"chat {tiny_model.name}"
            of_prompt = {"send prompts", "process prompts", chat, "send feedback"}
            of_prompt |= {"process feedback"}
            spans = until_collected(collected, of_prompt | {"update default"})
    by_name = {span.name: span for span in spans if span.trace_id == trace_of(spans, "river")}
    assert by_name.keys() == of_prompt | {"update default"}
    # Each hop is a child of the one before it.
    assert by_name["process prompts"].parent_id == by_name["send prompts"].span_id
    assert by_name[chat].parent_id == by_name["process prompts"].span_id
    assert by_name["process feedback"].parent_id == by_name[chat].span_id
    learned = by_name["update default"]
    assert learned.parent_id == by_name["process feedback"].span_id
    # The other user's way to the same version.
    assert learned.links == [trace_of(spans, "brook")]
    assert update.model_version in learned.attributes["headwater.model_version"]
    sent = b"".join(collected.bodies)
    assert not any(secret.encode() in sent for secret in SECRETS)
