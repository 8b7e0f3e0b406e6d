"""From feedback to a new version that others can load, is tracked and can be made again."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch
from broker import own_river, running
from exchange_records import a_feedback, publish_exchanges
from learning_agents import learning_parts
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from stage import kill
from workers import agent_parts

from agents.learning.controls import control_record
from agents.settings import LearnSettings
from agents.tracking.settings import TrackSettings
from agents.tracking.tensorboard_files import read_steps
from infra.learning_replay import Replay
from infra.local_kafka import LocalKafka
from infra.river import TRACK
from infra.supervisor import Supervisor
from models.artifacts import fetch
from models.learning.adapter_files import read_adapter
from models.privacy.ledger import verify
from models.privacy.ledger_store import LedgerStore
from models.privacy.noise import Tensors
from models.privacy.randomness import NoiseKey
from schemas import codec
from schemas.errors import DataInvalid, ModelUnavailable
from schemas.events import LEARNING_ENDED, PROGRESSIVE, Example, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, EXAMPLES, MODEL_UPDATES, Topic
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROUNDS = 3
SETTINGS = {
    "HEADWATER_LEARN_MECHANISM": "gaussian",
    "HEADWATER_LEARN_EPSILON": "2",
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


async def all_of(kafka: KafkaSettings) -> list[Statistic]:
    """What `analytics` holds now."""
    async with Subscription(kafka, ANALYTICS, since="earliest") as subscription:
        return [
            codec.decode(ANALYTICS, record.value or b"") async for record in subscription.present()
        ]


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
    # Two cohorts, and after the first of them the learner is killed, and who tracks it.
    await publish_exchanges(kafka, prompts[:6], feedback[:6])
    await versions(kafka, 1)
    await turn(kafka, "paused")
    await kill(supervisor, "learn")
    await kill(supervisor, TRACK)
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


@dataclass(frozen=True)
class Taught:
    """What a river told that learned until its budget was spent, and its folder."""

    kafka: KafkaSettings
    folder: Path
    examples: list[Example]
    updates: list[ModelUpdate]
    ended: Statistic

    @property
    def track(self) -> TrackSettings:
        return TrackSettings(folder=self.folder / "tracking")


async def until_tracked(settings: TrackSettings, version: str) -> None:
    """The last thing that is written of a release is that it is live."""
    async with asyncio.timeout(60):
        while not settings.database.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        client = MlflowClient(settings.store_uri, settings.store_uri)
        while True:
            await asyncio.sleep(0.2)
            try:
                found = client.get_model_version_by_alias("default", "live")
            except MlflowException:
                continue
            if found.tags["model_version"] == version:
                return


@pytest.fixture(scope="module")
def taught(
    broker: LocalKafka, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Taught:
    folder = tmp_path_factory.mktemp("taught")
    kafka = own_river(broker.address)
    track = TrackSettings(folder=folder / "tracking")
    (tracking,) = agent_parts(kafka, tiny_model, (TRACK,))
    env = {**tracking.env, "HEADWATER_TRACK_FOLDER": str(track.folder)}
    parts = [*learning_parts(kafka, tiny_model, folder, SETTINGS), replace(tracking, env=env)]
    with running(parts, folder) as supervisor:
        told = asyncio.run(stream(kafka, supervisor))
        asyncio.run(until_tracked(track, told[1][-1].model_version))
    return Taught(kafka, folder, *told)


def test_feedback_becomes_versions_until_the_budget_is_spent(
    taught: Taught, tmp_path: Path
) -> None:
    examples, updates, ended = taught.examples, taught.updates, taught.ended
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
    kept: list[Tensors] = []
    for update in updates:
        assert update.artifact_uri is not None
        assert update.artifact_sha256 is not None
        assert update.privacy is not None
        assert update.privacy.mechanism == "gaussian"
        assert update.evaluation["gate_questions"] == 4
        folder = fetch(update.artifact_uri, update.artifact_sha256, tmp_path / "fetched")
        tensors, shape = read_adapter(folder)
        assert shape.rank == 4
        # With so small a budget only B is learned: A is as it began.
        assert all(bool(t.any()) for n, t in tensors.items() if "lora_B" in n)
        kept.append({n: t for n, t in tensors.items() if "lora_A" in n})
    for name, begun in kept[0].items():
        assert all(torch.equal(begun, later[name]) for later in kept)

    store = LedgerStore(taught.folder / "learning" / "ledger.db")
    spent = verify(store.entries("default"))
    store.close()
    assert spent.rounds == ROUNDS
    assert updates[-1].ledger_sha256 == spent.head
    assert updates[-1].privacy is not None
    assert updates[-1].privacy.epsilon_total == pytest.approx(spent.epsilon)
    assert ended.name == LEARNING_ENDED
    assert ended.values["epsilon"] == pytest.approx(spent.epsilon)
    # Of people's examples nothing is told that was not accounted for.
    assert PROGRESSIVE not in {statistic.name for statistic in asyncio.run(all_of(taught.kafka))}


def test_mlflow_has_the_run_its_metrics_and_its_releases(taught: Taught) -> None:
    settings, updates = taught.track, taught.updates
    client = MlflowClient(settings.store_uri, settings.store_uri)
    experiment = client.get_experiment_by_name("headwater")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    # A release names its run.
    assert {update.run for update in updates} == {run.info.run_name}
    assert run.info.status == "FINISHED"
    assert run.data.params["mechanism"] == "gaussian" and run.data.params["rank"] == "4"
    epsilon = client.get_metric_history(run.info.run_id, "epsilon")
    # Once each, though the learner was killed and told of a round again.
    assert [found.step for found in epsilon] == [1, 2, 3]
    assert updates[-1].privacy is not None
    assert epsilon[-1].value == updates[-1].privacy.epsilon_total
    assert read_steps(settings.curves / run.info.run_name) == {1, 2, 3}

    versions = client.search_model_versions("name = 'default'")
    assert {found.tags["model_version"] for found in versions} == {
        "default-1",
        "default-2",
        "default-3",
    }
    for found in versions:
        update = next(u for u in updates if u.model_version == found.tags["model_version"])
        assert found.run_id == run.info.run_id
        assert found.tags["artifact_sha256"] == update.artifact_sha256
        # The registry's own copy is the same file.
        assert fetch(found.source or "", update.artifact_sha256 or "", taught.folder / "copies")


def again_of(folder: Path, version: str) -> Replay:
    return Replay(LearnSettings(folder=folder, device="cpu", dtype="float32"), version)


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def test_a_version_is_made_again_bit_by_bit_and_nothing_is_spent(
    taught: Taught, tmp_path: Path
) -> None:
    ledger = (taught.folder / "learning" / "ledger.db").read_bytes()
    for update in taught.updates:
        again = again_of(taught.folder / "learning", update.model_version)
        try:
            cohorts = asyncio.run(again.cohorts(taught.kafka))
            folder = tmp_path / update.model_version
            found = again.run(cohorts, quiet, folder)
        finally:
            again.close()
        assert found.artifact_sha256 == update.artifact_sha256
        assert fetch(folder.as_uri(), update.artifact_sha256 or "", tmp_path / "verified")
    assert found.rounds == ROUNDS and found.users == 3 * ROUNDS
    assert (taught.folder / "learning" / "ledger.db").read_bytes() == ledger


def test_what_cannot_be_made_again_says_why(
    taught: Taught, broker: LocalKafka, tmp_path: Path
) -> None:
    learning = tmp_path / "learning"
    shutil.copytree(taught.folder / "learning", learning)
    with pytest.raises(ModelUnavailable, match="it has default-1, default-2, default-3"):
        again_of(learning, "default-9")
    with pytest.raises(ModelUnavailable, match="study rebuild"):
        again_of(learning, "documents-1")
    with closing(again_of(learning, "default-2")) as again:
        # Another river, whose topic has none of them: six, and the rating of the first user
        # where it came in time for that user's cohort.
        with pytest.raises(DataInvalid, match=r"(6 of 6|7 of 7) examples are not in examples any"):
            asyncio.run(again.cohorts(own_river(broker.address)))
        cohorts = asyncio.run(again.cohorts(taught.kafka))
        first = next(iter(cohorts[1].examples.values()))
        kept, first[0] = first[0], msgspec.structs.replace(first[0], correction="Ten metres.")
        with pytest.raises(DataInvalid, match="Round 1 was computed from other input"):
            again.run(cohorts, quiet)
        first[0] = kept
        key = learning / "default.noise-key"
        key.rename(learning / "elsewhere")
        with pytest.raises(DataInvalid, match=r"noise key .* is gone"):
            again.run(cohorts, quiet)
        assert not key.exists()
        NoiseKey.open(key)
        with pytest.raises(DataInvalid, match="not the noise key"):
            again.run(cohorts, quiet)


def test_a_ledger_that_is_only_read_takes_nothing(taught: Taught) -> None:
    store = LedgerStore(taught.folder / "learning" / "ledger.db", read_only=True)
    with closing(store), pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.mark_published("default", "default-1")
