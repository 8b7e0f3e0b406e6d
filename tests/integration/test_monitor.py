"""Windows in, figures and rollbacks out, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from monitors import monitoring, page, publish_statistics
from windows_by_hand import MINUTE_MS, one_of_each, rated, thumbs

from agents.learning.model_change import publish
from schemas import codec
from schemas.clock import now_ms
from schemas.events import DRIFT_DETECTED, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, CONTROLS, MODEL_UPDATES, Topic
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

ACTING: dict[str, Any] = {"on_reward_drift": "rollback,pause"}


@asynccontextmanager
async def producing(kafka: KafkaSettings) -> AsyncIterator[Producer]:
    producer = Producer(kafka)
    try:
        yield producer
    finally:
        await producer.close()


async def go_live(kafka: KafkaSettings, version: str, parent: str) -> None:
    update = ModelUpdate("default", version, "online", now_ms(), parent)
    await publish(kafka, update, "/test")


async def present(kafka: KafkaSettings, topic: Topic) -> list[Any]:
    async with Subscription(kafka, topic, since="earliest") as events:
        return [codec.decode(topic, r.value or b"") async for r in events.present()]


async def test_a_start_reads_back_what_lasts_however_old_it_is(kafka: KafkaSettings) -> None:
    async with producing(kafka) as producer:
        await publish_statistics(producer, one_of_each("v1", now_ms()))
    # Whatever is there is older than that.
    async with monitoring(kafka, history_h=1e-9) as address:
        shown = await until_shown(address, "privacy_epsilon_budget")
    assert "window_reward_mean" not in shown


async def until_shown(address: str, what: str) -> str:
    async with asyncio.timeout(20):
        while what not in (shown := await page(address)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return shown


@pytest.mark.long
async def test_detectors_are_after_a_restart_as_they_were(kafka: KafkaSettings) -> None:
    """Nothing is kept on disk: however a monitor ends, its successor reads the windows again."""
    windows = usual(("v1",), 20, Random(9))
    # Worse, but not yet for sure.
    windows[-1] = rated("v1", windows[-1].window_end_ms, 0.4, 100)
    said = []
    async with producing(kafka) as producer, monitoring(kafka) as address:
        await publish_statistics(producer, windows)
        await until_shown(address, 'window_reward_mean{model_version="v1"} 0.4')
        said.append(evidence(await page(address)))
    async with monitoring(kafka) as address:
        await until_shown(address, 'window_reward_mean{model_version="v1"} 0.4')
        said.append(evidence(await page(address)))
    assert said[0] == said[1] > 0.0


def evidence(shown: str) -> float:
    """For a drift of the reward, nats."""
    (line,) = (line for line in shown.splitlines() if line.startswith("headwater:drift_evidence{"))
    return float(line.split()[1])


def usual(versions: tuple[str, ...], windows: int, random: Random) -> list[Statistic]:
    """Windows of 600 thumbs that end now, without drift."""
    first_ms = now_ms() - windows * MINUTE_MS
    return [
        rated(version, first_ms + n * MINUTE_MS, thumbs(random, 0.8, 600), 600)
        for n in range(1, windows + 1)
        for version in versions
    ]


async def test_a_version_whose_reward_falls_is_rolled_back_once(kafka: KafkaSettings) -> None:
    random = Random(5)
    await go_live(kafka, "v1", "base")
    await go_live(kafka, "v2", "v1")
    begin = usual(("v1", "v2"), 17, random)
    now = now_ms()
    fall = [
        rated(version, now + n * 1_000, thumbs(random, share, 600), 600)
        for n in (1, 2)
        for version, share in (("v1", 0.8), ("v2", 0.7))
    ]
    fall = [
        Statistic(s.name, s.window_end_ms - 1_000, s.window_end_ms, s.labels, s.values)
        for s in fall
    ]
    async with producing(kafka) as producer, monitoring(kafka, **ACTING) as address:
        await publish_statistics(producer, begin)
        # 20,400 ratings without a drift.
        await until_shown(address, 'window_reward_mean{model_version="v2"}')
        await publish_statistics(producer, fall)
        await until_shown(address, 'model_version="v1",origin="rollback"')
        await until_shown(address, 'learning_paused{adapter="default"} 1.0')
    # A restart reads the same windows back, and what was done about them.
    async with monitoring(kafka, **ACTING) as address:
        await until_shown(address, 'signal="reward"')
    updates = await present(kafka, MODEL_UPDATES)
    assert [u.model_version for u in updates] == ["v1", "v2", "v1"]
    assert updates[-1].origin == "rollback"
    assert "reward of v2 went from 0." in updates[-1].reason
    assert [c.learning for c in await present(kafka, CONTROLS)] == ["paused"]
    told = [s for s in await present(kafka, ANALYTICS) if s.name == DRIFT_DETECTED]
    acted = [s for s in told if s.labels["actions"]]
    assert [s.labels["actions"] for s in acted] == ["rollback,pause"]
    assert {s.labels["model_version"] for s in told} == {"v2"}
    # Within two windows.
    assert acted[0].window_end_ms in (now + 1_000, now + 2_000)
