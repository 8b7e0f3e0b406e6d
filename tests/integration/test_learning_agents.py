"""From feedback to a new version that others can load, on a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker import own_river, running
from exchange_records import a_feedback, publish_exchanges
from learning_agents import learning_parts

from infra.local_kafka import LocalKafka
from models.artifacts import fetch
from models.learning.adapter_files import read_adapter
from models.privacy.ledger import verify
from models.privacy.ledger_store import LedgerStore
from schemas import codec
from schemas.events import LEARNING_ENDED, Example, ModelUpdate
from schemas.topics import ANALYTICS, EXAMPLES, MODEL_UPDATES, Topic
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


async def values(kafka: KafkaSettings, topic: Topic, least: int) -> list[object]:
    """All events of a topic, once there are so many."""
    async with Subscription(kafka, topic, since="earliest") as subscription:
        found: list[object] = []
        async with asyncio.timeout(120):
            async for record in subscription.records():
                found.append(codec.decode(topic, record.value or b""))
                if len(found) == least:
                    return found
    return found


async def stream(kafka: KafkaSettings) -> tuple[list[Example], list[ModelUpdate], list[object]]:
    prompts = [f"river-{number}" for number in range(3 * ROUNDS)]
    feedback = [a_feedback(prompt) for prompt in prompts]
    # Ratings, what says nothing, and feedback on what nobody asked.
    feedback += [a_feedback(prompts[0], 1, correction=None, rating=-1.0)]
    feedback += [a_feedback(prompts[0], 2, correction=None, labels={"seen": "yes"})]
    feedback += [a_feedback("nobody-asked")]
    await publish_exchanges(kafka, prompts, feedback)
    examples = await values(kafka, EXAMPLES, len(prompts) + 1)
    updates = await values(kafka, MODEL_UPDATES, ROUNDS)
    ended = await values(kafka, ANALYTICS, 1)
    return examples, updates, ended  # type: ignore[return-value]


def test_feedback_becomes_versions_until_the_budget_is_spent(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    with running(learning_parts(kafka, tiny_model, tmp_path, SETTINGS), tmp_path):
        examples, updates, (ended,) = asyncio.run(stream(kafka))

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
