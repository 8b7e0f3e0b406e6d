"""A river with a federate agent and a fleet of devices, as an operator sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet import make_fleet
from learning_agents import QUESTIONS
from workers import agent_parts

from agents.rounds.asked_round import asked_record
from infra.fleet.local import LocalFleet
from infra.part import Part
from infra.river import FEDERATE
from schemas import codec
from schemas.events import FederatedRound, ModelUpdate
from schemas.topics import FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

SETTINGS = {
    "HEADWATER_FEDERATE_MECHANISM": "gaussian",
    "HEADWATER_FEDERATE_ROUNDS_MAX": "4",
    "HEADWATER_FEDERATE_PARTICIPATIONS_MAX": "4",
    "HEADWATER_FEDERATE_DEVICES": "3",
    "HEADWATER_FEDERATE_TIMEOUT_S": "60",
    # Whatever the noise does to a tiny model, each version goes live.
    "HEADWATER_LEARN_GATE_TOLERANCE": "100",
    "HEADWATER_LEARN_DTYPE": "float32",
    "HEADWATER_LEARN_DEVICE": "cpu",
}


@dataclass(frozen=True)
class FederatedRiver:
    """Parts for a Supervisor; `folder` has the ledger in `learning`."""

    kafka: KafkaSettings
    fleet: LocalFleet
    parts: list[Part]
    folder: Path

    async def ask(self, round_id: str) -> None:
        """Asks for a round, as an operator does."""
        producer = Producer(self.kafka)
        try:
            await producer.send(asked_record("default", round_id))
        finally:
            await producer.close()

    async def until_round(self, round_id: str, *statuses: str) -> list[FederatedRound]:
        """All events of a round, once one has such a status."""
        found: list[FederatedRound] = []
        async with asyncio.timeout(150), self._events(FEDERATED_ROUNDS) as events:
            async for event in events:
                assert isinstance(event, FederatedRound)
                if event.round_id == round_id:
                    found.append(event)
                    if event.status in statuses:
                        break
        return found

    async def updates(self) -> list[ModelUpdate]:
        """All records of model-updates."""
        async with self._events(MODEL_UPDATES) as events:
            return [
                codec.decode(MODEL_UPDATES, record.value or b"")
                async for record in events.present()
            ]

    def _events(self, topic: Topic) -> Subscription:
        return Subscription(self.kafka, topic, since="earliest")


def federated_river(
    kafka: KafkaSettings,
    model: Path,
    folder: Path,
    agents: tuple[str, ...] = (FEDERATE,),
    env: Mapping[str, str] | None = None,
    device_env: Mapping[str, str] | None = None,
) -> FederatedRiver:
    """Three devices, the SuperLink and its gate, and agents that know of it."""
    fleet = make_fleet(folder / "f", model, 3, device_env)
    gate = folder / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    settings = {
        "HEADWATER_LEARN_FOLDER": str(folder / "learning"),
        "HEADWATER_LEARN_GATE_SET": str(gate),
        "HEADWATER_CACHE_DIR": str(folder / "cache"),
        "HEADWATER_FEDERATE_SUPERLINK": fleet.superlink,
        "HEADWATER_FEDERATE_SUPERLINK_FOLDER": str(fleet.superlink_ca.parent),
        **SETTINGS,
        **(env or {}),
    }
    own = agent_parts(kafka, model, agents)
    working = [replace(part, env={**part.env, **settings}, after=("superlink",)) for part in own]
    return FederatedRiver(kafka, fleet, [*fleet.parts, *working], folder)
