"""A generate worker whose engine is a server elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_answers import tokens
from fake_openai import MODEL, FakeServer

from infra.river import agent_part
from infra.supervisor import Supervisor
from schemas import codec
from schemas.events import Context, Generation, Message, Prompt, Sampling
from schemas.topics import CONTEXTS, GENERATIONS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


async def finished(kafka: KafkaSettings) -> Generation:
    """What the worker makes of one context."""
    prompt = Prompt([Message("user", "the river")], "p", Sampling(max_tokens=12, seed=3))
    producer = Producer(kafka)
    try:
        context = codec.encode(Context("p", prompt, [], 0, 0))
        await producer.send(Outgoing(CONTEXTS, "p", context, []))
    finally:
        await producer.close()
    async with Subscription(kafka, GENERATIONS, since="earliest") as subscription:
        async for generation in subscription:
            assert isinstance(generation, Generation)
            return generation
    raise AssertionError


async def test_a_worker_answers_from_a_server_elsewhere(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    server = FakeServer(api_key="sk-test")
    async with server.served() as url:
        env = {
            "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "HEADWATER_GENERATE_ENGINE": "remote",
            "HEADWATER_GENERATE_REMOTE_URL": url,
            "HEADWATER_GENERATE_REMOTE_API_KEY": "sk-test\n",
        }
        supervisor = Supervisor([replace(agent_part("generate", env), after=())], tmp_path)
        generation: Generation = await supervisor.run(lambda: finished(kafka))
    (asked,) = server.requests
    assert generation.text == "".join(text for text, _ in tokens(asked, 500))
    assert (generation.model, generation.model_version) == (MODEL, "base")
    assert generation.finish_reason == "length"
    assert generation.usage.completion_tokens == 12
    assert "sk-test" not in (tmp_path / "logs/generate.log").read_text()
