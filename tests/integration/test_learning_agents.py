"""From feedback to a new version that others can load, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from broker import own_river, running
from exchange_records import a_feedback, publish_exchanges
from learning_agents import learning_parts
from stage import kill

from agents.controls import control_record
from infra.local_kafka import LocalKafka
from infra.supervisor import Supervisor
from models.artifacts import fetch
from models.learning.adapter_files import read_adapter
from models.privacy.ledger import verify
from models.privacy.ledger_store import LedgerStore
from schemas.events import LEARNING_ENDED, Example, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, EXAMPLES, MODEL_UPDATES, Topic
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROUNDS = 3
SETTINGS = {
    "HEADWATER_LEARN_MECHANISM": "gaussian",
    "HEADWATER_LEARN_ROUNDS_MAX": str(ROUNDS),
    # Whatever the noise does to a tiny model, each version goes live.
    "HEADWATER_LEARN_GATE_TOLERANCE": "100",
}


async def until(
    kafka: KafkaSettings, topic: Topic, enough: Callable[[list[Any]], bool]
) -> list[Any]:
    """The events of a topic, once there are enough."""
    found: list[Any] = []
    async with asyncio.timeout(120), Subscription(kafka, topic, since="earliest") as events:
        async for event in events:
            found.append(event)
            if enough(found):
                break
    return found


async def versions(kafka: KafkaSettings, count: int) -> list[ModelUpdate]:
    """Releases; one whose publisher was killed may come twice, and then says the same."""
    found = await until(
        kafka, MODEL_UPDATES, lambda found: len({u.model_version for u in found}) == count
    )
    assert all(u == v for u in found for v in found if u.model_version == v.model_version)
    return list({update.model_version: update for update in found}.values())


async def turn(kafka: KafkaSettings, learning: Literal["on", "paused"]) -> None:
    """Pause learning, or let it go on."""
    producer = Producer(kafka)
    try:
        await producer.send(control_record("default", learning, "a test", learning, "/test"))
    finally:
        await producer.close()


async def stream(
    kafka: KafkaSettings, supervisor: Supervisor
) -> tuple[list[Example], list[ModelUpdate], Statistic]:
    prompts = [f"river-{number}" for number in range(3 * ROUNDS)]
    feedback = [a_feedback(prompt) for prompt in prompts]
    # Ratings, what says nothing, and feedback on what nobody asked.
    feedback += [a_feedback(prompts[0], 1, correction=None, rating=-1.0)]
    feedback += [a_feedback(prompts[0], 2, correction=None, labels={"seen": "yes"})]
    feedback += [a_feedback("nobody-asked")]
    # Two cohorts, and the learner is killed after the first of them.
    await publish_exchanges(kafka, prompts[:6], feedback[:6])
    await versions(kafka, 1)
    await turn(kafka, "paused")
    await kill(supervisor, "learn")
    await publish_exchanges(kafka, prompts[6:], feedback[6:])
    examples = await until(kafka, EXAMPLES, lambda found: len(found) == len(prompts) + 1)
    # Its successor reads that it is paused; the second cohort may have been done before.
    await asyncio.sleep(1)
    async with Subscription(kafka, MODEL_UPDATES, since="earliest") as subscription:
        assert len([record async for record in subscription.present()]) < ROUNDS
    await turn(kafka, "on")
    updates = await versions(kafka, ROUNDS)
    told = await until(kafka, ANALYTICS, lambda found: found[-1].name == LEARNING_ENDED)
    return examples, updates, told[-1]


def test_feedback_becomes_versions_until_the_budget_is_spent(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    parts = learning_parts(kafka, tiny_model, tmp_path, SETTINGS)
    with running(parts, tmp_path) as supervisor:
        examples, updates, ended = asyncio.run(stream(kafka, supervisor))

    assert len({example.example_id for example in examples}) == len(examples)
    assert len({example.user for example in examples}) == 3 * ROUNDS
    assert all(example.user.startswith("user-") for example in examples)
    # As the model was asked: with the passage that it was shown.
    assert "nine metres deep" in examples[0].messages[-1].content

    assert [update.model_version for update in updates] == [
        "default-1",
        "default-2",
        "default-3",
    ]
    assert [update.parent_version for update in updates] == ["base", "default-1", "default-2"]
    for update in updates:
        assert update.artifact_uri is not None
        assert update.artifact_sha256 is not None
        assert update.privacy is not None
        assert update.privacy.mechanism == "gaussian"
        assert update.evaluation["gate_questions"] == 4
        folder = fetch(update.artifact_uri, update.artifact_sha256, tmp_path / "fetched")
        assert read_adapter(folder)[1].rank == 4

    store = LedgerStore(tmp_path / "learning" / "ledger.db")
    spent = verify(store.entries("default"))
    store.close()
    assert spent.rounds == ROUNDS
    assert updates[-1].ledger_sha256 == spent.head
    assert updates[-1].privacy is not None
    assert updates[-1].privacy.epsilon_total == pytest.approx(spent.epsilon)
    assert ended.name == LEARNING_ENDED
    assert ended.values["epsilon"] == pytest.approx(spent.epsilon)
