"""A round's sum on its way to a version, beside online learning of the same adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvgM
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file
from tiny_model import build_tiny_model

from agents.learning.adapter_learning import Learning
from agents.rounds.adapter_rounds import Federation
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import Node
from agents.settings import LearnSettings
from models.engine.load import load as load_model
from models.federation.aggregation import admit, summed
from models.federation.deltas import pack, unpack
from models.federation.layout import Flat, flatten, layout_digest
from models.federation.local_step import local_delta
from models.federation.work import LocalWork
from models.learning.adapter_files import read_adapter
from models.learning.examples import TrainingExample
from models.learning.gate import LiveVersion
from models.learning.lora import LoraShape, new_adapter
from models.privacy.ledger import Round, verify
from schemas.errors import DataInvalid, LedgerBroken, SettingsInvalid
from streams.settings import load

OWNERS = {f"owner{number}": f"{number:064x}" for number in range(2)}


@dataclass
class Desk:
    """Both learners of one adapter in one folder, and what is live."""

    folder: Path
    model: Path
    live: LiveVersion = field(default_factory=lambda: LiveVersion("base", {}, LoraShape()))
    opened: list[Federation | Learning] = field(default_factory=list)

    def learn_settings(self, **changed: Any) -> LearnSettings:
        gate = self.folder / "gate.jsonl"
        question = {"messages": [{"role": "user", "content": "Deep?"}], "answer": "Nine metres."}
        gate.write_text(json.dumps(question) + "\n")
        given = {"folder": self.folder, "gate_set": gate, "dtype": "float32", "device": "cpu"}
        given |= {"mechanism": "none", "cohort_size": 1, "gate_tolerance": 100.0}
        return LearnSettings(**given | changed)

    def federation(self, **changed: Any) -> Federation:
        given: dict[str, Any] = {"mechanism": "none", "devices": 2, "participations_max": 2}
        learn = {name: changed.pop(name) for name in ("gate_tolerance", "rank") if name in changed}
        settings = FederateSettings(**given | changed)
        found = Federation(
            settings, self.learn_settings(**learn), str(self.model), lambda: self.live
        )
        self.opened.append(found)
        return found

    def learning(self) -> Learning:
        found = Learning(self.learn_settings(), str(self.model), lambda: self.live)
        self.opened.append(found)
        return found

    def weights(self, of: Federation | Learning, found: Round) -> Flat:
        """A round's version as it was written."""
        adapter, _ = read_adapter(of.rounds.folder(found.model_version, found.context))
        return flatten({name: tensor.numpy() for name, tensor in adapter.items()})

    def goes_live(self, of: Federation | Learning, found: Round, origin: str) -> None:
        folder = of.rounds.folder(found.model_version, found.context)
        self.live = LiveVersion(found.model_version, *read_adapter(folder), origin)

    def close(self) -> None:
        for one in self.opened:
            one.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def desk(tmp_path: Path, model: Path) -> Iterator[Desk]:
    found = Desk(tmp_path, model)
    yield found
    found.close()


def begun(federation: Federation, folder: Path) -> Flat:
    """What devices are sent."""
    federation.begin(folder / "sent.safetensors")
    return flatten(load_file(folder / "sent.safetensors"))


def online_round(learning: Learning, number: int) -> Round:
    """A cohort of one user."""
    example = TrainingExample(
        example_id=f"e{number}",
        user=f"u{number}",
        messages=({"role": "user", "content": "Deep?"},),
        correction="Nine metres.",
    )
    found = learning.add(example, "examples/0", number + 1)
    assert found is not None
    return found


def a_sum(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Both devices moved one weight by 5."""
    total = np.zeros(size)
    total[3] = 10.0
    return total


def test_the_new_version_is_the_old_one_moved_by_the_mean_delta(desk: Desk) -> None:
    federation = desk.federation()
    sent = begun(federation, desk.folder)
    found = federation.finish(a_sum(sent.size), OWNERS, {"federated-rounds/0": 1})
    assert found.released
    assert found.users == ("owner0", "owner1")
    assert desk.weights(federation, found) == pytest.approx(sent + a_sum(sent.size) / 2)
    assert verify(federation.store.entries(federation.name)).rounds == 1


FLOWERS: dict[str, Callable[[], FedAvgM | FedAdam]] = {
    "fedavgm": lambda: FedAvgM(server_learning_rate=0.3, server_momentum=0.9),
    "fedadam": lambda: FedAdam(eta=1e-3, beta_1=0.9, beta_2=0.99, tau=1e-9),
}


def flowers_step(strategy: FedAvgM | FedAdam, number: int, sent: Flat, mean: Flat) -> Flat:
    """Where Flower's own strategy goes, of one device that moved by `mean`."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = arrays(sent)
    else:
        strategy.current_arrays = {"w": sent}
    content = RecordDict({"arrays": arrays(sent + mean), "m": MetricRecord({"num-examples": 1})})
    reply = Message(content, reply_to=Message(RecordDict(), dst_node_id=1, message_type="train"))
    found, _ = strategy.aggregate_train(number, [reply])
    assert found is not None
    return found["w"].numpy().astype(np.float32)


def arrays(flat: Flat) -> ArrayRecord:
    return ArrayRecord({"w": Array(flat)})


@pytest.mark.parametrize("strategy", FLOWERS)
def test_other_strategies_step_as_flowers_do(desk: Desk, strategy: str) -> None:
    federation, flowers = desk.federation(strategy=strategy), FLOWERS[strategy]()
    # Flower's correction for the first rounds counts them from 0.
    for number in (0, 1):
        sent = begun(federation, desk.folder)
        total = np.random.default_rng(number).normal(size=sent.size)
        found = federation.finish(total, OWNERS, {})
        expected = flowers_step(flowers, number, sent, (total / 2).astype(np.float32))
        assert desk.weights(federation, found) == pytest.approx(expected, abs=1e-5)
        desk.goes_live(federation, found, "federated")


def test_noise_is_on_the_sum_and_in_the_ledger(desk: Desk) -> None:
    federation = desk.federation(mechanism="gaussian", rounds_max=2)
    sent = begun(federation, desk.folder)
    found = federation.finish(np.zeros(sent.size), OWNERS, {})
    noise = desk.weights(federation, found) - sent
    plan = federation.opening.plan
    # Of the sum, so that fewer devices than planned would not thin it; then divided by two.
    assert noise.std() == pytest.approx(plan.noise_multiplier / 2, rel=0.05)
    assert found.epsilon == pytest.approx(plan.epsilon(1))


def test_devices_begin_with_what_online_learning_released(desk: Desk) -> None:
    learning, federation = desk.learning(), desk.federation()
    desk.goes_live(learning, first := online_round(learning, 0), "online")
    assert np.array_equal(begun(federation, desk.folder), desk.weights(learning, first))


def test_a_version_that_went_live_during_the_round_is_not_undone(desk: Desk) -> None:
    learning, federation = desk.learning(), desk.federation()
    sent = begun(federation, desk.folder)
    desk.goes_live(learning, meanwhile := online_round(learning, 0), "online")
    found = federation.finish(a_sum(sent.size), OWNERS, {})
    assert found.parent_version == meanwhile.model_version
    expected = desk.weights(learning, meanwhile) + a_sum(sent.size) / 2
    assert desk.weights(federation, found) == pytest.approx(expected, abs=1e-6)


def test_online_learning_goes_on_from_a_federated_version(desk: Desk) -> None:
    learning, federation = desk.learning(), desk.federation()
    desk.goes_live(learning, first := online_round(learning, 0), "online")
    sent = begun(federation, desk.folder)
    federated = federation.finish(a_sum(sent.size), OWNERS, {})
    desk.goes_live(federation, federated, "federated")
    second = online_round(learning, 1)
    assert second.parent_version == federated.model_version
    weights = desk.weights(learning, second)
    assert weights[3] == pytest.approx(desk.weights(learning, first)[3] + 5.0, abs=0.1)
    # And the next federated round has both.
    desk.goes_live(learning, second, "online")
    assert begun(federation, desk.folder) == pytest.approx(weights, abs=1e-6)


def test_what_was_taken_in_outlives_a_restart(desk: Desk) -> None:
    learning, federation = desk.learning(), desk.federation()
    desk.goes_live(learning, online_round(learning, 0), "online")
    sent = begun(federation, desk.folder)
    desk.goes_live(federation, federation.finish(a_sum(sent.size), OWNERS, {}), "federated")
    second = online_round(learning, 1)
    desk.goes_live(learning, second, "online")
    again = desk.federation()
    assert begun(again, desk.folder) == pytest.approx(desk.weights(learning, second), abs=1e-6)


def test_a_live_version_of_another_rank_is_refused_clearly(desk: Desk) -> None:
    federation = desk.federation()
    desk.live = LiveVersion("v8", {"x.lora_A.weight": torch.zeros(8, 4)}, LoraShape(rank=8))
    with pytest.raises(DataInvalid, match=r"has rank 8 on .*; federated rounds have rank 4"):
        federation.begin(desk.folder / "sent.safetensors")


def test_a_version_that_is_worse_stays_behind_the_gate(desk: Desk) -> None:
    federation = desk.federation(gate_tolerance=0.0)
    sent = begun(federation, desk.folder)
    poison = np.random.default_rng(0).normal(scale=10.0, size=sent.size)
    found = federation.finish(poison, OWNERS, {})
    assert not found.released
    assert federation.store.unpublished(federation.name) == []


POISONED: dict[str, Callable[[Flat], Flat]] = {
    "sign-flipped": lambda delta: -delta,
    "scaled": lambda delta: 100 * delta,
    "not a number": lambda delta: delta * np.float32(np.nan),
}


def honest_delta(desk: Desk) -> Flat:
    """What a device learns of the answer that the gate wants."""
    loaded = load_model(str(desk.model), desk.folder, "cpu", "float32")
    arrays = {name: t.numpy() for name, t in new_adapter(loaded.model, LoraShape()).items()}
    work = LocalWork(
        round_id="r",
        layout=layout_digest(arrays),
        rank=4,
        alpha=8.0,
        targets=LoraShape().targets,
        norm_max=1.0,
        epochs=5,
        learning_rate=1e-2,
    )
    example = TrainingExample(
        example_id="e",
        user="device",
        messages=({"role": "user", "content": "Deep?"},),
        correction="Nine metres.",
    )
    flat = flatten(arrays)
    return unpack(local_delta(loaded, work, flat, [example]), flat.size)


def judged(desk: Desk, deltas: list[Flat]) -> Round:
    """A round of three devices under a gate that lets nothing worse through."""
    federation = desk.federation(gate_tolerance=0.0, devices=3)
    begun(federation, desk.folder)
    payloads = {node: pack(delta, "none") for node, delta in enumerate(deltas)}
    admitted = admit(payloads, deltas[0].size, 1.0).deltas
    owners = {f"owner{node}": f"{node:064x}" for node in admitted}
    return federation.finish(summed(admitted), owners, {})


@pytest.mark.parametrize("kind", POISONED)
def test_one_poisoned_device_of_three_does_not_make_the_model_worse(desk: Desk, kind: str) -> None:
    delta = honest_delta(desk)
    found = judged(desk, [delta, delta, POISONED[kind](delta)])
    assert found.released
    assert found.evaluation["gate_loss"] < found.evaluation["gate_loss_live"]
    # Too long or no numbers: not in the sum.
    assert len(found.users) == (3 if kind == "sign-flipped" else 2)


def test_where_most_devices_are_poisoned_the_gate_stays_shut(desk: Desk) -> None:
    delta = honest_delta(desk)
    assert not judged(desk, [delta, -delta, -delta]).released


def test_an_owner_has_one_device_in_a_round_and_so_many_rounds(desk: Desk) -> None:
    federation = desk.federation(mechanism="gaussian", rounds_max=4)
    nodes = [Node(n, f"owner{n // 2}/{n % 2}", "online", n != 5) for n in range(6)]
    assert len(set(federation.choose(nodes).values())) == 2
    sent = begun(federation, desk.folder)
    for _ in range(2):
        federation.finish(np.zeros(sent.size), OWNERS, {})
    # Two of three have been in as many rounds as the plan allows.
    assert federation.choose(nodes) == {4: "owner2"}


def test_settings_that_cannot_keep_their_promise_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_FEDERATE_AGGREGATION", "median")
    with pytest.raises(SettingsInvalid, match="no bound that a privacy promise could rest on"):
        load(FederateSettings)
    monkeypatch.undo()
    desk.federation(devices=2)
    with pytest.raises(LedgerBroken, match="devices was 2 and is 3"):
        desk.federation(devices=3)
