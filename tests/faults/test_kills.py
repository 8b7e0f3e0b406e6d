"""Law 1: whatever is killed, each accepted prompt ends with exactly one finished record."""

from __future__ import annotations

import asyncio

import confluent_kafka
import pytest
from fixtures import RunningBroker
from stage import OUTPUT, Stage, a_prompt, kill

from infra.river import AGENTS
from schemas import codec
from schemas.events import Context
from schemas.topics import CONTEXTS, GENERATIONS, PASSAGES

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(240)]

PROMPTS = 200
UNFINISHED_MIN = 160  # of those, when the worker is killed


@pytest.mark.parametrize("victim", AGENTS)
async def test_kill_9_of_each_worker_under_200_prompts_in_flight(victim: str, stage: Stage) -> None:
    prefix = f"{victim}-"
    expected = await stage.publish(prefix, PROMPTS, documents=PROMPTS)
    await stage.begun(OUTPUT[victim], prefix)
    await kill(stage.workers, victim)
    assert await stage.unfinished(prefix, expected) >= UNFINISHED_MIN
    await stage.begun(OUTPUT[victim], prefix, PROMPTS // 2)
    await kill(stage.workers, victim)
    await stage.each_has_one_final(prefix, expected)
    await stage.begun(PASSAGES, prefix, PROMPTS)


async def test_short_answers_behind_a_long_one_are_neither_lost_nor_repeated(stage: Stage) -> None:
    """What is finished behind the head of a partition cannot be committed before it."""
    short = {f"head-short-{n}" for n in range(20)}
    contexts = [context("head-long", 900), *(context(key, 4) for key in sorted(short))]
    produce(stage, contexts, partition=1)
    await stage.begun(GENERATIONS, "head-short-", 1)
    await kill(stage.workers, "generate")
    assert not await stage.keys(GENERATIONS, "head-long")
    await stage.each_has_one_final("head-", {"head-long", *short})


async def test_the_broker_is_restarted_under_load(
    stage: Stage, running_broker: RunningBroker
) -> None:
    expected = await stage.publish("broker-", PROMPTS)
    await stage.begun(GENERATIONS, "broker-", 5)
    await kill(stage.broker, "kafka")
    await asyncio.sleep(0.2)
    await running_broker.node.wait_ready(60)
    assert await stage.unfinished("broker-", expected) > 0
    await stage.each_has_one_final("broker-", expected)


def context(prompt_id: str, tokens: int) -> Context:
    return Context(prompt_id, a_prompt(prompt_id, tokens), [], 1, 1)


def produce(stage: Stage, contexts: list[Context], partition: int) -> None:
    """Past retrieve, so that all of them share a partition, in this order."""
    producer = confluent_kafka.Producer({"bootstrap.servers": stage.kafka.bootstrap})
    for made in contexts:
        name = stage.kafka.topic_name(CONTEXTS)
        producer.produce(name, codec.encode(made), made.prompt_id, partition)
    producer.flush()
