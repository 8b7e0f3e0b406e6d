"""Law 1: whatever is killed, each accepted prompt ends with exactly one finished record."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest
from broker import own_river, prepared_broker
from workers import agent_parts

from headwater import Client, Prompt, Retrieval, Sampling
from infra.river import AGENTS
from infra.supervisor import Supervisor
from schemas.events import Message
from schemas.topics import GENERATIONS, PASSAGES
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(240)]

PROMPTS = 200
LAKES = 20
WAIT_S_MAX = 150
SETTLE_S = 3.0


def prompt(number: int) -> Prompt:
    return Prompt(
        [Message("user", f"How deep is lake {number % LAKES}?")],
        f"prompt-{number}",
        Sampling(max_tokens=12),
        Retrieval(top_k=1),
    )


async def publish(kafka: KafkaSettings, pause_s: float = 0.0) -> set[str]:
    """Documents, and prompts that ask for them; a pause keeps every stage busy for a while."""
    prompts = [prompt(number) for number in range(PROMPTS)]
    async with Client(kafka) as client:
        for start in range(0, PROMPTS, 10):
            lake = start // 10
            await client.publish_document(f"Lake {lake} is deep.", document_id=f"lake-{lake}")
            await client.publish_prompts(prompts[start : start + 10])
            await asyncio.sleep(pause_s)
    return {prompt.prompt_id or "" for prompt in prompts}


async def kill(supervisor: Supervisor, victim: str) -> None:
    """kill -9, as soon as there is a process that has not been killed yet."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not psutil.pid_exists(supervisor.pids()[victim]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    os.kill(supervisor.pids()[victim], signal.SIGKILL)


async def documents_found(kafka: KafkaSettings) -> set[str]:
    """Documents whose first passage is there and not deleted."""
    alive: dict[str, bool] = {}
    async with Subscription(kafka, PASSAGES, since="earliest") as subscription:
        async for record in subscription.present():
            alive[record.key_text or ""] = record.value is not None
    return {key.removesuffix("#0") for key, lives in alive.items() if lives}


async def finished(kafka: KafkaSettings) -> Counter[str]:
    """How many finished records each prompt has, as read-committed consumers see it."""
    async with Subscription(kafka, GENERATIONS, since="earliest") as subscription:
        return Counter([record.key_text or "" async for record in subscription.present()])


async def until_finished(kafka: KafkaSettings, count: int) -> Counter[str]:
    async with asyncio.timeout(WAIT_S_MAX):
        while len(found := await finished(kafka)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return found


@pytest.mark.parametrize("victim", AGENTS)
async def test_kill_9_of_each_worker_under_200_prompts_in_flight(
    victim: str, kafka: KafkaSettings, tiny_model: Path, tmp_path: Path
) -> None:
    supervisor = Supervisor(agent_parts(kafka, tiny_model), tmp_path, deaths_max=20)
    rng = random.Random(victim)

    async def work() -> Counter[str]:
        publishing = asyncio.create_task(publish(kafka, pause_s=0.2))
        for _ in range(2):
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            await kill(supervisor, victim)
        expected = await publishing
        await until_finished(kafka, PROMPTS)
        await asyncio.sleep(SETTLE_S)  # For records too many, which nothing announces.
        found = await finished(kafka)
        assert set(found) == expected
        async with asyncio.timeout(WAIT_S_MAX):
            while len(lakes := await documents_found(kafka)) < LAKES:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert lakes == {f"lake-{n}" for n in range(LAKES)}
        return found

    found = await supervisor.run(work)
    assert found is not None
    assert set(found.values()) == {1}


async def test_the_broker_is_restarted_under_load(tiny_model: Path, tmp_path: Path) -> None:
    node = prepared_broker(tmp_path / "kafka")
    broker = Supervisor([node.part()], tmp_path / "broker", deaths_max=20)

    async def with_broker() -> Counter[str]:
        kafka = await asyncio.to_thread(own_river, node.address)
        agents = Supervisor(agent_parts(kafka, tiny_model), tmp_path / "agents", deaths_max=20)

        async def work() -> Counter[str]:
            expected = await publish(kafka)
            await until_finished(kafka, PROMPTS // 10)
            await kill(broker, "kafka")
            await node.wait_ready(60)
            await until_finished(kafka, PROMPTS)
            await asyncio.sleep(SETTLE_S)
            found = await finished(kafka)
            assert set(found) == expected
            return found

        result = await agents.run(work)
        assert result is not None
        return result

    found = await broker.run(with_broker)
    assert found is not None
    assert set(found.values()) == {1}
