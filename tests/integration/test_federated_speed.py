"""What the river adds to a round of plain Flower, and what the resident trainer saves; one run."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from broker import own_river, running
from federated_river import FederatedRiver, federated_river

from agents.rounds.superlink import APP, SuperLink
from infra.local_kafka import LocalKafka
from models.engine.load import load
from models.federation.outcome import OUTCOME_FILE
from models.learning.adapter_files import WEIGHTS_FILE, write_adapter
from models.learning.lora import LoraShape, new_adapter

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

ROUNDS = 3
# The issue's own bound, with what a poll of the run's status may miss.
OVERHEAD_S_MAX = 2.0
# As Flower's examples have it: the ClientApp itself loads the model and trains.
TORCH_CLIENT = """
from pathlib import Path

import msgspec
import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from agents.edge.store import ExampleStore
from agents.federated.task import adapter_of, reply_content, work_of
from models.engine.load import load
from models.federation.local_step import local_delta
from models.federation.work import LocalWork

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    store = ExampleStore(Path(str(context.node_config["trainer"])).parent)
    work = msgspec.json.decode(work_of(message), type=LocalWork)
    flat = np.frombuffer(adapter_of(message), "<f4").astype(np.float32)
    loaded = load("MODEL", Path("MODEL"), "cpu", "float32")
    delta = local_delta(loaded, work, flat, store.examples())
    store.close()
    return Message(reply_content(delta), reply_to=message)
"""


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    begun_s = time.monotonic()
    await work()
    return time.monotonic() - begun_s


async def plain_round(river: FederatedRiver, adapter: Path, result: Path) -> None:
    """A run of the app alone, until Flower says that it has ended."""
    link = SuperLink(river.fleet.superlink, river.fleet.superlink_ca)
    try:
        config = {"adapter": str(adapter), "result": str(result), "clients": 3, "clients-min": 3}
        run_id = await asyncio.to_thread(link.start, {**config, "timeout-s": 100.0})
        async with asyncio.timeout(120):
            while True:
                if (await asyncio.to_thread(link.status, run_id)).ended:
                    break
                await asyncio.sleep(0.3)
    finally:
        link.close()
    assert (result / OUTCOME_FILE).exists()


async def story(
    river: FederatedRiver, adapter: Path, torch_app: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], list[float], float]:
    await asyncio.to_thread(river.fleet.admit)
    await river.fleet.until_online(3)

    async def through_river(name: str) -> None:
        await river.ask(name)
        (*_, last) = await river.until_round(name, "finished", "failed")
        assert last.status == "finished"

    await through_river("warm")
    ours, plain = [], []
    for number in range(ROUNDS):
        plain.append(
            await timed(lambda n=number: plain_round(river, adapter, river.folder / f"p{n}"))
        )
        ours.append(await timed(lambda n=number: through_river(f"r{n}")))
    monkeypatch.setattr("agents.rounds.superlink.APP", torch_app)
    loading = await timed(lambda: plain_round(river, adapter, river.folder / "torch"))
    return ours, plain, loading


def test_the_river_adds_little_and_the_resident_trainer_saves_much(
    broker: LocalKafka, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = own_river(broker.address)
    torch_app = tmp_path / "app"
    shutil.copytree(APP, torch_app, ignore=shutil.ignore_patterns("__pycache__"))
    (torch_app / "client_app.py").write_text(TORCH_CLIENT.replace("MODEL", str(tiny_model)))
    loaded = load(str(tiny_model), tmp_path, "cpu", "float32")
    write_adapter(tmp_path / "a", new_adapter(loaded.model, LoraShape()), LoraShape(), "tiny")
    env = {"HEADWATER_FEDERATE_ROUNDS_MAX": "8", "HEADWATER_FEDERATE_PARTICIPATIONS_MAX": "8"}
    river = federated_river(kafka, tiny_model, tmp_path, env=env)
    with running(river.parts, tmp_path):
        ours, plain, loading = asyncio.run(
            story(river, tmp_path / "a" / WEIGHTS_FILE, torch_app, monkeypatch)
        )
    print(f"river {ours}, plain Flower {plain}, torch in the ClientApp {loading:.1f} s")
    overhead_s = statistics.median(ours) - statistics.median(plain)
    assert overhead_s <= max(OVERHEAD_S_MAX, 0.1 * statistics.median(plain))
    assert loading >= 2 * statistics.median(plain)
