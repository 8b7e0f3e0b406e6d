"""A round that is asked for on the topic ends as a new live version: real Kafka, real Flower."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from adapter_river import adapter_river
from broker import own_river, running
from federated_river import FederatedRiver, federated_river

from agents.edge.store import ExampleStore
from infra.local_kafka import LocalKafka
from infra.river import FEDERATE
from models.learning.adapter_files import read_adapter
from models.privacy.ledger import Round, verify
from models.privacy.ledger_store import LedgerStore
from schemas.events import FederatedRound, ModelUpdate

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(280)]


async def story(river: FederatedRiver) -> tuple[list[FederatedRound], list[ModelUpdate]]:
    await asyncio.to_thread(river.fleet.admit)
    await river.fleet.until_online(3)
    await river.ask("round-a")
    # The second waits until the first is done.
    await river.ask("round-b")
    events = await river.until_round("round-a", "finished", "failed")
    events += await river.until_round("round-b", "finished", "failed")
    async with adapter_river(river.kafka, river.folder) as asking:
        # What a subscriber sees in the tokens.
        await asking.until_served("default.federated-2")
    return events, await river.updates()


def test_a_round_asked_for_ends_as_a_version_that_answers(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    river = federated_river(kafka, tiny_model, tmp_path, ("generate", FEDERATE))
    with running(river.parts, tmp_path):
        events, updates = asyncio.run(story(river))

    assert [event.status for event in events] == ["asked", "started", "finished"] * 2
    done = events[2]
    assert (done.clients, done.clients_failed, done.reason) == (3, 0, None)
    assert done.received_bytes is not None
    assert done.duration_s is not None
    _bytes_and_account(river, done.received_bytes)

    last = updates[-1]
    assert (last.adapter, last.origin) == ("default", "federated")
    assert (last.model_version, last.parent_version) == (
        "default.federated-2",
        "default.federated-1",
    )
    assert last.privacy is not None
    assert last.privacy.privacy_unit == "device"

    store = LedgerStore(tmp_path / "learning" / "ledger.db")
    spent = verify(store.entries("default.federated"))
    rounds: list[Round] = store.rounds("default.federated")
    store.close()
    assert spent.rounds == 2
    assert set(rounds[0].users) == {"owner0", "owner1", "owner2"}
    assert last.ledger_sha256 == spent.head
    assert last.privacy.epsilon_total == pytest.approx(spent.epsilon)
    # The sum without noise is gone.
    assert not list((river.fleet.superlink_ca.parent / "rounds").iterdir())


def _bytes_and_account(river: FederatedRiver, received_bytes: int) -> None:
    """A device sends little more than an adapter is long, and its owner can see what."""
    adapter, _ = read_adapter(next((river.folder / "learning" / "versions").glob("*-1-*")))
    size = 4 * sum(int(np.prod(tensor.shape)) for tensor in adapter.values())
    assert received_bytes <= 3 * 1.1 * size
    store = ExampleStore(river.fleet.devices[0])
    sent = store.sent()
    store.close()
    assert [one.round_id for one in sent] == ["round-a", "round-b"]
    assert sum(one.bytes for one in sent) <= 2 * 1.1 * size


async def one_round(river: FederatedRiver) -> FederatedRound:
    await asyncio.to_thread(river.fleet.admit)
    await river.fleet.until_online(3)
    await river.ask("secure")
    return (await river.until_round("secure", "finished", "failed"))[-1]


def test_a_round_whose_server_sees_the_sum_alone(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    env = {"HEADWATER_FEDERATE_SECURE": "true"}
    river = federated_river(kafka, tiny_model, tmp_path, env=env)
    with running(river.parts, tmp_path):
        done = asyncio.run(one_round(river))
    assert (done.status, done.clients, done.reason) == ("finished", 3, None)
    assert done.model_version == "default.federated-1"
    print(f"{done.duration_s:.1f} s, {done.received_bytes} bytes received")
