"""Law 1 while partitions change hands: workers join, die for good, come back and leave."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from malformed_inside import passage_kinds
from stage import Stage, kill, until

from infra.part import Part
from infra.river import ANSWERING
from infra.supervisor import Supervisor
from schemas import codec
from schemas.topics import DEAD_LETTERS, GENERATIONS, PASSAGES

pytestmark = [pytest.mark.integration, pytest.mark.asyncio, pytest.mark.timeout(240)]

PROMPTS = 200
MALFORMED = 20


@pytest.mark.long
async def test_workers_join_die_and_leave_under_load(stage: Stage, tmp_path: Path) -> None:
    second = Supervisor([newcomer(part) for part in stage.parts], tmp_path, deaths_max=20)
    expected = await stage.publish("join-", PROMPTS, documents=20)

    async def beside_the_first() -> set[str]:
        await until(lambda: two_members_work(stage))
        before_death = await stage.publish("death-", PROMPTS, documents=20)
        await stage.begun(GENERATIONS, "death-")
        await asyncio.gather(*(kill(second, f"{name}-newcomer") for name in ANSWERING))
        await stage.each_has_one_final("death-", before_death)
        await until(lambda: two_members_work(stage))
        await malformed_passages_are_buried_once(stage)
        before_leaving = await stage.publish("leave-", PROMPTS, documents=20)
        await stage.begun(GENERATIONS, "leave-")
        return before_leaving

    before_leaving = await second.run(beside_the_first)
    assert before_leaving is not None
    await stage.each_has_one_final("leave-", before_leaving)
    await stage.each_has_one_final("join-", expected)
    for prefix in ("join-", "death-", "leave-"):
        await stage.begun(PASSAGES, prefix, 20)


def newcomer(part: Part) -> Part:
    """A second worker without static membership: it is replaced when it dies, and says goodbye."""
    env = {key: text for key, text in part.env.items() if key != "HEADWATER_WORKER_INSTANCE_ID"}
    return replace(part, name=f"{part.name}-newcomer", env=env)


async def two_members_work(stage: Stage) -> bool:
    """Whether each agent has two workers with partitions of their own."""
    admin = AdminClient(stage.kafka.client_config())
    groups = admin.describe_consumer_groups([stage.kafka.group_name(name) for name in ANSWERING])
    described = [await asyncio.wrap_future(group) for group in groups.values()]
    working = [[m for m in group.members if m.assignment.topic_partitions] for group in described]
    return all(len(members) == 2 for members in working)


async def malformed_passages_are_buried_once(stage: Stage) -> None:
    """Both replicas read all of `passages`."""
    rng, kinds = random.Random(2), passage_kinds()
    producer = confluent_kafka.Producer({"bootstrap.servers": stage.kafka.bootstrap})
    name = stage.kafka.topic_name(PASSAGES)
    sent = [kinds[number % len(kinds)](rng) for number in range(MALFORMED)]
    for key, value in sent:
        producer.produce(name, value, key)
    producer.flush()

    async def all_buried() -> bool:
        return sum((await buried(stage, name)).values()) >= MALFORMED

    await until(all_buried)
    await asyncio.sleep(1.0)  # for the other replica's
    assert await buried(stage, name) == Counter(key for key, _ in sent)


async def buried(stage: Stage, topic: str) -> Counter[bytes | None]:
    letters = [
        codec.decode(DEAD_LETTERS, record.value or b"")
        for record in await stage.records(DEAD_LETTERS)
    ]
    return Counter(letter.key for letter in letters if letter.topic == topic)
