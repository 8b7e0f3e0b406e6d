"""Tuning beside a river: candidates follow the topic of examples, and what came of them is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker import own_river
from exchange_records import an_example

from agents.settings import LearnSettings
from agents.tuning.contest import Contest
from agents.tuning.rules import TuningRules
from agents.tuning.stream import tune_on_topic
from infra.local_kafka import LocalKafka
from models.learning.tuning import candidates_of
from schemas import codec, headers
from schemas.events import TUNING_ENDED, TUNING_RUNG, Statistic
from schemas.topics import ANALYTICS, EXAMPLES
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def an_outgoing(number: int) -> Outgoing:
    example = an_example(number, f"e{number}", f"u{number}")
    made = headers.make_headers(EXAMPLES, example.example_id, "/tests")
    return Outgoing(EXAMPLES, example.user, codec.checked(EXAMPLES, example), made)


def quiet(contest: Contest) -> None:
    """Nobody watches."""


async def tune(kafka: KafkaSettings, settings: LearnSettings, model: Path) -> tuple[Contest, int]:
    rules = TuningRules("tune", tuple(candidates_of([1e-9, 0.05], [2], [1.0], [4])), users=8)
    producer = Producer(kafka)
    tuning = asyncio.ensure_future(
        tune_on_topic(kafka, lambda: Contest(settings, str(model), rules), quiet)
    )
    # They come while it follows.
    for number in range(12):
        await producer.send(an_outgoing(number))
    await producer.close()
    contest = await tuning
    # The same once more: nothing is learned twice, and the same is told.
    again = await tune_on_topic(kafka, lambda: Contest(settings, str(model), rules), quiet)
    return contest, sum(len(one.rounds) for one in again.contestants)


async def told(kafka: KafkaSettings) -> list[Statistic]:
    async with Subscription(kafka, ANALYTICS, since="earliest") as subscription:
        return [
            codec.decode(ANALYTICS, record.value or b"") async for record in subscription.present()
        ]


def test_a_tuning_follows_the_topic_and_tells_what_came_of_it(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    settings = LearnSettings(mechanism="none", folder=tmp_path, device="cpu", dtype="float32")
    contest, rounds = asyncio.run(tune(kafka, settings, tiny_model))
    assert [len(one.rounds) for one in contest.contestants] == [2, 2] and rounds == 4
    statistics = asyncio.run(told(kafka))
    rungs = [found for found in statistics if found.name == TUNING_RUNG]
    assert len(rungs) == 4 and len({str(found) for found in rungs}) == 2
    kept = {found.labels["learning_rate"]: found.labels["kept"] for found in rungs}
    assert kept == {"1e-09": "false", "0.05": "true"}
    ended = [found for found in statistics if found.name == TUNING_ENDED]
    assert {found.labels["learning_rate"] for found in ended} == {"0.05"}
