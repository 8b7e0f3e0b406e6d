"""A round through the river beside plain Flower's, with the resident trainer and without; one run.

Three devices with two examples each, on this machine, with TLS and keys, all through a relay that
counts their bytes. Sides take turns. Through the river, a round is asked for on the topic, and has
the ledger, the gate with a few questions, and the release beside what plain Flower does; it ends
when the topic says so.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agents.rounds.asked_round import asked_record
from agents.rounds.flower_round import ADAPTER_FILE, run_round
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import APP
from infra.bench import torch_client_app
from infra.bench.wire_meter import WireMeter
from infra.fleet.local import LocalFleet, fill_store, local_fleet
from infra.ports import free_ports
from infra.supervisor import Supervisor
from models.engine.load import load
from models.learning.adapter_files import artifact_bytes
from models.learning.examples import TrainingExample
from models.learning.lora import LoraShape, new_adapter
from schemas.errors import WorkerFailed
from schemas.events import FederatedRound
from schemas.topics import FEDERATED_ROUNDS
from streams.producer import Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

DEVICES: Final = 3
ROUNDS: Final = 5
_TORCH_ROUNDS: Final = 2
_EXAMPLES: Final = 2
_GATE_QUESTIONS: Final = 4
_ROUND_S_MAX: Final = 200.0
# A SuperNode is refused, and ends, until its device is admitted.
_DEATHS_MAX: Final = 1_000


@dataclass(frozen=True)
class BenchFleet:
    """Devices, their meter and its port."""

    fleet: LocalFleet
    meter: WireMeter
    meter_port: int
    adapter: Path

    @property
    def env(self) -> dict[str, str]:
        """What the federate agent has to know."""
        folder = self.adapter.parent
        gate = folder / "gate.jsonl"
        questions = [_example(10 + number, 0) for number in range(_GATE_QUESTIONS)]
        asked = [{"messages": one.messages, "answer": one.correction} for one in questions]
        gate.write_text("".join(json.dumps(question) + "\n" for question in asked))
        return {
            "HEADWATER_FEDERATE_SUPERLINK": self.fleet.superlink,
            "HEADWATER_FEDERATE_SUPERLINK_FOLDER": str(self.fleet.superlink_ca.parent),
            "HEADWATER_FEDERATE_DEVICES": str(DEVICES),
            # Nobody waits for these releases to be good ones.
            "HEADWATER_LEARN_GATE_SET": str(gate),
            "HEADWATER_LEARN_GATE_TOLERANCE": "100",
        }


def bench_fleet(folder: Path, model: str, cache_dir: Path) -> BenchFleet:
    """What is to be measured, in `folder`; nothing runs yet."""
    homes = [folder / f"owner{number}" for number in range(DEVICES)]
    for number, home in enumerate(homes):
        fill_store(home, [_example(number, turn) for turn in range(_EXAMPLES)])
    (port,) = free_ports(1)
    fleet = local_fleet(folder, homes, {"HEADWATER_EDGE_MODEL": model}, through=port)
    adapter = folder / ADAPTER_FILE
    loaded = load(model, cache_dir, "auto", "auto")
    adapter.write_bytes(artifact_bytes(new_adapter(loaded.model, LoraShape())))
    return BenchFleet(fleet, WireMeter(fleet.gate), port, adapter)


async def bench_federation(kafka: KafkaSettings, bench: BenchFleet) -> dict[str, Any]:
    """Seconds of each round and bytes of a device, on a river whose federate agent knows of it."""
    folder = bench.adapter.parent
    supervisor = Supervisor(bench.fleet.parts, folder, deaths_max=_DEATHS_MAX)

    async def measure() -> dict[str, Any]:
        async with bench.meter.listening(bench.meter_port):
            await asyncio.to_thread(bench.fleet.admit)
            await bench.fleet.until_online(DEVICES)
            return await _measured(kafka, bench)

    found = await supervisor.run(measure)
    if found is None:
        raise WorkerFailed("The benchmark was interrupted.")
    return found


async def _measured(kafka: KafkaSettings, bench: BenchFleet) -> dict[str, Any]:
    await _river_round(kafka)
    plain: list[float] = []
    river: list[float] = []
    sent, received = bench.meter.sent_bytes, bench.meter.received_bytes
    for _ in range(ROUNDS):
        plain.append(await _timed(lambda: _plain_round(bench, APP)))
        river.append(await _timed(lambda: _river_round(kafka)))
    rounds = 2 * ROUNDS * DEVICES
    sent, received = bench.meter.sent_bytes - sent, bench.meter.received_bytes - received
    torch_app = _torch_app(bench.adapter.parent / "app")
    loading = [await _timed(lambda: _plain_round(bench, torch_app)) for _ in range(_TORCH_ROUNDS)]
    middle, size = statistics.median(plain), bench.adapter.stat().st_size
    # Of neighbours in time: what else the machine does changes from turn to turn.
    adds = [ours - theirs for ours, theirs in zip(river, plain, strict=True)]
    return {
        "devices": DEVICES,
        "plain_flower_s": _rounded(plain),
        "river_s": _rounded(river),
        "river_adds_s": round(statistics.median(adds), 2),
        "torch_client_app_s": _rounded(loading),
        "resident_trainer_times_sooner": round(statistics.median(loading) / middle, 2),
        "adapter_bytes": size,
        "device_sends_bytes": sent // rounds,
        "device_receives_bytes": received // rounds,
        "sent_over_adapter": round(sent / rounds / size, 3),
    }


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    begun_s = time.monotonic()
    await work()
    return time.monotonic() - begun_s


async def _river_round(kafka: KafkaSettings) -> None:
    round_id = uuid.uuid4().hex
    producer = Producer(kafka)
    try:
        async with asyncio.timeout(_ROUND_S_MAX), Subscription(kafka, FEDERATED_ROUNDS) as events:
            await producer.send(asked_record("default", round_id))
            async for event in events:
                assert isinstance(event, FederatedRound)
                if event.round_id == round_id and event.status == "failed":
                    raise WorkerFailed(f"A round failed: {event.reason}")
                if event.round_id == round_id and event.status == "finished":
                    return
    finally:
        await producer.close()


async def _plain_round(bench: BenchFleet, app: Path) -> None:
    """A run of the app alone, until Flower says that it has ended."""
    settings = FederateSettings(mechanism="none", devices=DEVICES, timeout_s=_ROUND_S_MAX)
    folder = bench.adapter.parent / f"plain-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    shutil.copyfile(bench.adapter, folder / ADAPTER_FILE)
    link = bench.fleet.open()
    try:
        await run_round(link, settings, LoraShape(), folder.name, folder, {}, app)
    finally:
        link.close()


def _torch_app(folder: Path) -> Path:
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(str(torch_client_app.__file__), folder / "client_app.py")
    return folder


def _example(number: int, turn: int) -> TrainingExample:
    question = f"What does owner {number} ask of river {turn}?"
    return TrainingExample(
        example_id="",
        user="",
        messages=({"role": "user", "content": question},),
        correction=f"Nine metres, says {number}.",
    )


def _rounded(seconds: list[float]) -> list[float]:
    return [round(value, 2) for value in seconds]
