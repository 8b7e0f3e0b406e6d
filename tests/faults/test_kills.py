"""Law 1: whatever is killed, each accepted prompt ends with exactly one finished record."""

from __future__ import annotations

import asyncio

import pytest
from fixtures import RunningBroker
from stage import OUTPUT, Stage, a_context, kill

from schemas.topics import GENERATIONS, PASSAGES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio,
    pytest.mark.timeout(240),
    pytest.mark.long,
]

PROMPTS = 320
UNFINISHED_MIN = 200  # of those, when the worker is killed


@pytest.mark.parametrize("victim", ["generate", "ingest", "retrieve"])
async def test_kill_9_of_each_worker_under_200_prompts_in_flight(victim: str, stage: Stage) -> None:
    prefix = f"{victim}-"
    expected = await stage.publish(prefix, PROMPTS, documents=PROMPTS)
    await stage.begun(OUTPUT[victim], prefix)
    await kill(stage.workers, victim)
    assert await stage.unfinished(prefix, expected) >= UNFINISHED_MIN
    if victim == "generate":
        # Once more, while finished records are being committed.
        await stage.begun(GENERATIONS, prefix, PROMPTS // 2)
        await kill(stage.workers, victim)
    await stage.each_has_one_final(prefix, expected)
    await stage.begun(PASSAGES, prefix, PROMPTS)


async def test_short_answers_behind_a_long_one_are_neither_lost_nor_repeated(stage: Stage) -> None:
    """What is finished behind the head of a partition cannot be committed before it."""
    short = {f"head-short-{n}" for n in range(20)}
    contexts = {"head-long": a_context("head-long", 900)}
    stage.produce(contexts | {key: a_context(key, 4) for key in short}, partition=1)
    await stage.begun(GENERATIONS, "head-short-")
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
