"""A version whose ratings fall, from records of its answers to the record that takes it back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from broker import running
from flink import windows
from monitors import monitoring
from window_events import MINUTE_MS, Made, make_exchanges, publish

from agents.learning.model_change import publish as make_live
from schemas import codec
from schemas.clock import now_ms
from schemas.events import DRIFT_DETECTED, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription
from streams.windows.settings import AnalyticsSettings

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(300)]

SETTINGS = AnalyticsSettings(window_s=60, lateness_s=5, idle_s=20, checkpoint_s=2, jobs="quality")
RATINGS = 600  # a minute
QUIET_MINUTES = 17
FALLEN_MINUTES = 2


def rated_answers(begin_ms: int) -> Iterator[Made]:
    """10,200 answers of v2 of which 80 % are liked, then those of two minutes of which 70 % are."""
    chance = Random(3)
    minutes = QUIET_MINUTES + FALLEN_MINUTES
    made = make_exchanges(RATINGS * minutes, begin_ms, 60 * minutes)
    for answer in (record for record in made if record.topic == "generations"):
        assert isinstance(answer.value, dict) and answer.at_ms is not None
        served = {"model_version": "v2", "finish_reason": "stop"}
        yield replace(answer, value=answer.value | served)
        share = 0.8 if answer.at_ms < begin_ms + QUIET_MINUTES * MINUTE_MS else 0.7
        rating = 1.0 if chance.random() < share else -1.0
        feedback = {"prompt_id": answer.key, "feedback_id": answer.key, "rating": rating}
        yield Made("feedback", answer.key, feedback, answer.at_ms + 1)


async def until_rolled_back(kafka: KafkaSettings) -> ModelUpdate:
    async with asyncio.timeout(200), Subscription(kafka, MODEL_UPDATES, since="earliest") as found:
        async for update in found:
            assert isinstance(update, ModelUpdate)
            if update.origin == "rollback":
                return update
    raise AssertionError("the subscription ended")


async def present(kafka: KafkaSettings, topic: Topic) -> list[Any]:
    async with Subscription(kafka, topic, since="earliest") as events:
        return [codec.decode(topic, r.value or b"") async for r in events.present()]


def acted_on(statistics: list[Statistic]) -> list[Statistic]:
    """What the detector that acts has found."""
    told = [each for each in statistics if each.name == DRIFT_DETECTED]
    return [drift for drift in told if drift.labels["detector"] == "cusum"]


async def story(kafka: KafkaSettings, begin_ms: int) -> ModelUpdate:
    for version, parent in (("v1", "base"), ("v2", "v1")):
        await make_live(kafka, ModelUpdate("default", version, "online", now_ms(), parent), "/test")
    async with monitoring(kafka, on_reward_drift="rollback,federate"):
        await asyncio.to_thread(publish, kafka, rated_answers(begin_ms))
        return await until_rolled_back(kafka)


def test_a_fall_in_the_records_of_answers_is_rolled_back_within_two_windows(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    fallen_ms = now_ms() // MINUTE_MS * MINUTE_MS - FALLEN_MINUTES * MINUTE_MS
    with running([windows(kafka, SETTINGS, tmp_path)], tmp_path):
        begin_ms = fallen_ms - QUIET_MINUTES * MINUTE_MS
        update = asyncio.run(story(kafka, begin_ms))
    assert (update.model_version, update.parent_version) == ("v1", "base")
    # Nothing in 10,200 ratings before, and the fall at the end of one of its two windows.
    (drift,) = acted_on(asyncio.run(present(kafka, ANALYTICS)))
    assert drift.labels["model_version"] == "v2"
    assert drift.labels["actions"] == "rollback,federate"
    assert fallen_ms < drift.window_end_ms <= fallen_ms + 2 * MINUTE_MS
    # Devices are asked to help, and told why.
    (asked,) = asyncio.run(present(kafka, FEDERATED_ROUNDS))
    assert (asked.status, asked.adapter) == ("asked", "default")
    assert "reward of v2 went from 0." in asked.reason
