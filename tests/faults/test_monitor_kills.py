"""A monitor that is killed over and over acts on a drift, and acts once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from broker import own_river, running
from fixtures import RunningBroker
from monitors import publish_statistics
from stage import kill
from windows_by_hand import MINUTE_MS, rated, thumbs

from agents.learning.model_change import publish
from infra.ports import free_ports
from infra.river import agent_part
from infra.supervisor import Supervisor
from schemas import codec
from schemas.clock import now_ms
from schemas.events import DRIFT_DETECTED, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, MODEL_UPDATES
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(240)]

KILLS = 4


async def serve_versions(kafka: KafkaSettings, producer: Producer) -> None:
    """Two versions, and 16 minutes of the newer one without a drift."""
    for version, parent in (("v1", "base"), ("v2", "v1")):
        update = ModelUpdate("default", version, "online", now_ms(), parent)
        await publish(kafka, update, "/test")
    random, first_ms = Random(7), now_ms() - 16 * MINUTE_MS
    await publish_statistics(
        producer,
        [
            rated("v2", first_ms + n * MINUTE_MS, thumbs(random, 0.8, 600), 600)
            for n in range(1, 17)
        ],
    )


async def versions(kafka: KafkaSettings) -> list[str]:
    async with Subscription(kafka, MODEL_UPDATES, since="earliest") as updates:
        found = [codec.decode(MODEL_UPDATES, r.value or b"") async for r in updates.present()]
    return [update.model_version for update in found]


async def drifts(kafka: KafkaSettings) -> list[Statistic]:
    async with Subscription(kafka, ANALYTICS, since="earliest") as analytics:
        found = [codec.decode(ANALYTICS, r.value or b"") async for r in analytics.present()]
    return [statistic for statistic in found if statistic.name == DRIFT_DETECTED]


async def drift_under_kills(kafka: KafkaSettings, supervisor: Supervisor) -> None:
    producer = Producer(kafka)
    try:
        await serve_versions(kafka, producer)
        for second in range(KILLS):
            end_ms = now_ms() + second
            window = rated("v2", end_ms, 0.2, 600)
            short = Statistic(window.name, end_ms - 1, end_ms, window.labels, window.values)
            await publish_statistics(producer, [short])
            await asyncio.sleep(0.1 * second)
            await kill(supervisor, "monitor")
        async with asyncio.timeout(60):
            while await versions(kafka) == ["v1", "v2"]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        # Once more, when it is done: the successor reads that it is.
        await kill(supervisor, "monitor")
        await asyncio.sleep(10)
    finally:
        await producer.close()


def test_a_killed_monitor_rolls_back_once(running_broker: RunningBroker, tmp_path: Path) -> None:
    kafka = own_river(running_broker.node.address)
    env = {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "HEADWATER_MONITOR_METRICS_PORT": str(free_ports(1)[0]),
        "HEADWATER_MONITOR_ON_REWARD_DRIFT": "rollback",
    }
    part = replace(agent_part("monitor", env), after=())
    with running([part], tmp_path) as supervisor:
        asyncio.run(drift_under_kills(kafka, supervisor))
        assert asyncio.run(versions(kafka)) == ["v1", "v2", "v1"]
        told = asyncio.run(drifts(kafka))
    assert [drift.labels["actions"] for drift in told].count("rollback") == 1
    names = [(drift.labels["detector"], drift.labels["signal"]) for drift in told]
    assert len(names) == len(set(names))
