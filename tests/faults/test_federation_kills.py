"""Whatever is killed in the midst of a round, the round ends and says how; the ledger is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker import own_river, running
from federated_river import FederatedRiver, federated_river
from fixtures import RunningBroker
from stage import kill
from tiny_model import build_tiny_model

from agents.edge.progress import read_progress
from infra.supervisor import Supervisor
from models.privacy.ledger import Spent, verify
from models.privacy.ledger_store import LedgerStore
from schemas.events import FederatedRound

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(500)]

SETTINGS = {
    "HEADWATER_FEDERATE_ROUNDS_MAX": "8",
    "HEADWATER_FEDERATE_PARTICIPATIONS_MAX": "8",
    "HEADWATER_FEDERATE_DEVICES_MIN": "2",
    # Training takes seconds, so that it can be cut short.
    "HEADWATER_FEDERATE_EPOCHS": "4",
    "HEADWATER_FEDERATE_BATCH_ROWS": "1",
}
SLOWLY = {"HEADWATER_EDGE_CPU_SHARE": "0.02"}
ENDS = ("finished", "failed")


async def in_training(river: FederatedRiver, round_id: str) -> None:
    await river.ask(round_id)
    async with asyncio.timeout(90):
        # As many as the quorum: one that was killed is refused for a minute.
        while sum(trains(home, round_id) for home in river.fleet.devices) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def trains(home: Path, round_id: str) -> bool:
    found = read_progress(home)
    return found is not None and found.round_id == round_id and found.done > 0


async def one_dies(
    river: FederatedRiver, supervisor: Supervisor, part: str
) -> list[FederatedRound]:
    """What the topic says of a round in whose midst a part is killed."""
    await in_training(river, part)
    await kill(supervisor, part)
    return await river.until_round(part, *ENDS)


async def the_superlink_dies(river: FederatedRiver, fleet: Supervisor) -> list[FederatedRound]:
    found = await one_dies(river, fleet, "superlink")
    await river.fleet.until_online(2)
    return found


async def story(
    river: FederatedRiver, fleet: Supervisor, broker: Supervisor
) -> dict[str, list[FederatedRound]]:
    await asyncio.to_thread(river.fleet.admit)
    await river.fleet.until_online(3)
    return {
        "device": await one_dies(river, fleet, "supernode-2"),
        "superlink": await the_superlink_dies(river, fleet),
        "agent": await one_dies(river, fleet, "federate"),
        "kafka": await one_dies(river, broker, "kafka"),
    }


def ledger(folder: Path) -> Spent:
    store = LedgerStore(folder / "learning" / "ledger.db")
    try:
        assert store.unpublished("default.federated") == []
        return verify(store.entries("default.federated"))
    finally:
        store.close()


def test_rounds_end_and_the_ledger_is_never_short(
    running_broker: RunningBroker, tmp_path: Path
) -> None:
    # The test itself waits for a broker that was killed, on a busy machine too.
    waiting = {"connect_timeout_s": 60.0}
    kafka = own_river(running_broker.node.address).model_copy(update=waiting)
    model = build_tiny_model(tmp_path / "model")
    river = federated_river(kafka, model, tmp_path, env=SETTINGS, device_env=SLOWLY)
    with running(river.parts, tmp_path) as fleet:
        told = asyncio.run(story(river, fleet, running_broker.supervisor))

    # The survivors are as many as the quorum.
    ended = told["device"][-1]
    assert (ended.status, ended.clients, ended.clients_failed) == ("finished", 2, 1)
    # Flower marks a run that its SuperLink lost as failed; nothing was spent.
    assert told["superlink"][-1].status == "failed"
    assert told["superlink"][-1].reason
    # Begun twice, done once.
    assert [event.status for event in told["agent"]] == ["asked", "started", "started", "finished"]
    finished = [events[-1] for events in told.values() if events[-1].status == "finished"]
    spent = ledger(tmp_path)
    assert spent.rounds == len(finished)
    assert {event.model_version for event in finished} == {
        f"default.federated-{number + 1}" for number in range(spent.rounds)
    }
