"""Behind the guard learning and tuning read verdicts: what is let through, by its weight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import torch
from broker import own_river
from exchange_records import an_example
from learning_agents import QUESTIONS

from agents.learning.adapter_learning import Learning
from agents.learning.releases import progressive_record
from agents.learning.taken_examples import read_example
from agents.settings import LearnSettings
from agents.tuning.contest import Contest
from agents.tuning.rules import TuningRules
from agents.tuning.stream import tune_on_topic
from infra.learning_replay import Replay
from infra.local_kafka import LocalKafka
from models.learning.gate import LiveVersion
from models.learning.lora import LoraShape
from models.learning.tuning import candidates_of
from models.privacy.ledger import Round
from schemas import codec, headers
from schemas.errors import DataInvalid
from schemas.events import PROGRESSIVE, Outcome, Verdict
from schemas.topics import ANALYTICS, VERDICTS
from streams.follower import Follower
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

USERS = 4


def a_verdict(number: int, decision: str = "accepted") -> Outgoing:
    """On one user's correction; each user counts for less than the one before."""
    user = f"u{number}" if decision == "accepted" else f"liar{number}"
    name = f"of-{user}"
    example = an_example(number, name, user)
    outcome = Outcome(name, user, f"p{number}", f"g{number}", "base", 0, example=example)
    told = {"outcome_id": name, "at_ms": 0, "decision": decision, "user": user}
    verdict = msgspec.convert(told | {"weight": 1.0 / (number + 1)}, Verdict)
    verdict = msgspec.structs.replace(verdict, outcome=outcome)
    made = headers.make_headers(VERDICTS, name, "/tests")
    return Outgoing(VERDICTS, outcome.user, codec.checked(VERDICTS, verdict), made)


async def publish(kafka: KafkaSettings) -> None:
    producer = Producer(kafka)
    for number in range(USERS):
        await producer.send(a_verdict(number, "quarantined"))
        await producer.send(a_verdict(number))
    await producer.close()


async def learned(kafka: KafkaSettings, learning: Learning) -> list[Round]:
    """What the learn worker does with the topic."""
    follower = Follower(kafka, VERDICTS, "earliest")
    await follower.open()
    found: list[Round] = []
    async for record in follower.until_caught_up():
        example = read_example(VERDICTS, record.value)
        if example is not None:
            source = f"{VERDICTS.name}/{record.partition}"
            done = learning.add(example, source, record.offset + 1)
            found += [] if done is None else [done]
    await follower.close()
    return found


@pytest.fixture(autouse=True)
def as_many_threads_as_learn_has() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(LearnSettings().threads)
    yield
    torch.set_num_threads(before)


def settings_in(folder: Path) -> LearnSettings:
    gate = folder / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return LearnSettings(
        mechanism="none",
        folder=folder,
        gate_set=gate,
        gate_tolerance=100.0,
        cohort_size=2,
        device="cpu",
        dtype="float32",
    )


def quiet(*_progress: object) -> None:
    """Nobody watches."""


def test_a_guarded_version_is_made_again_with_the_weights_of_its_verdicts(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_GENERATE_MODEL", str(tiny_model))
    kafka, settings = own_river(broker.address), settings_in(tmp_path)
    asyncio.run(publish(kafka))
    live = LiveVersion("base", {}, LoraShape())
    with closing(Learning(settings, str(tiny_model), lambda: live, guarded=True)) as learning:
        rounds = asyncio.run(learned(kafka, learning))
        told = progressive_record(learning.opening, rounds[-1], learning.progressive)
    assert len(rounds) == USERS // 2
    # What the last cohort cost before it was learned from; nothing of it is secret.
    progressive = codec.decode(ANALYTICS, told.value or b"")
    assert progressive.name == PROGRESSIVE
    assert progressive.labels["learner"] == "adapter"
    assert progressive.labels["model_version"] == rounds[-1].model_version
    assert (progressive.values["users"], progressive.values["examples"]) == (2.0, 2.0)
    assert progressive.values["loss_mean"] > 0.0
    with closing(Replay(settings, rounds[-1].model_version)) as again:
        cohorts = asyncio.run(again.cohorts(kafka))
        examples = {e.user: e for c in cohorts for part in c.examples.values() for e in part}
        assert {user: e.weight for user, e in examples.items()} == {
            f"u{number}": 1.0 / (number + 1) for number in range(USERS)
        }
        assert again.run(cohorts, quiet).artifact_sha256 == rounds[-1].artifact_sha256
        # The weights are in the result: with others it is another one.
        user = next(iter(cohorts[0].examples))
        cohorts[0].examples[user][0] = msgspec.structs.replace(examples[user], weight=0.123)
        with pytest.raises(DataInvalid, match="Round 0 was computed from other input"):
            again.run(cohorts, quiet)


def test_a_guarded_tuning_sees_what_the_guard_lets_through(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka, settings = own_river(broker.address), settings_in(tmp_path)
    rules = TuningRules(
        "tune", tuple(candidates_of([1e-9, 0.05], [2], [1.0], [1])), users=USERS - 1, guarded=True
    )
    asyncio.run(publish(kafka))
    contest = asyncio.run(
        tune_on_topic(kafka, lambda: Contest(settings, str(tiny_model), rules), quiet)
    )
    assert contest.alive == (1,)
    users = {user for one in contest.contestants for done in one.rounds for user in done.users}
    assert users and users <= {f"of-u{number}" for number in range(USERS)}
    assert set(contest.offsets) <= {f"{VERDICTS.name}/{n}" for n in range(VERDICTS.partitions)}
