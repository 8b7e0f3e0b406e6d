"""Very many devices in Flower's simulation: what a device costs in a round, and memory by round.

The model is tiny and random, so that what is measured is everything else: stores, messages,
training's fixed cost, the server's checks and sum.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import torch

from agents.rounds.settings import FederateSettings
from infra.fleet.local import fill_store
from infra.fleet.rounds import MixedRounds
from infra.fleet.simulation import end_simulation, simulation_part
from infra.fleet.tiny_model import build_tiny_model
from infra.supervisor import Supervisor
from models.engine.load import load
from models.federation.layout import Flat, flatten, unflatten
from models.learning.adapter_files import artifact_bytes
from models.learning.examples import TrainingExample
from models.learning.lora import LoraShape, new_adapter

_EXAMPLES = 2
_ROUND_S_MAX = 900.0


class ScaleFigures(msgspec.Struct):
    """After a round; `processes_mib` is resident memory of the simulation's processes together."""

    number: int
    seconds: float
    device_ms: float
    device_bytes: float
    processes_mib: float


async def many_devices(
    folder: Path, devices: int, rounds: int, told: Callable[[ScaleFigures], None]
) -> bool:
    """Every device takes part in every round; False where it was interrupted.

    The first round has the start of ray's workers in it. Raises what a round does.
    """
    model = build_tiny_model(folder / "model")
    for number in range(devices):
        fill_store(folder / "s" / str(number), _examples(number))
    env = {"HEADWATER_EDGE_MODEL": str(model), "HEADWATER_EDGE_DTYPE": "float32"}
    supervisor = Supervisor([simulation_part(folder, folder / "s", devices, env)], folder)
    shape = LoraShape()
    adapter = new_adapter(load(str(model), folder, "cpu", "float32").model, shape)
    like = {name: tensor.numpy() for name, tensor in adapter.items()}

    def weights_file(flat: Flat) -> bytes:
        parts = unflatten(flat, like)
        return artifact_bytes({name: torch.from_numpy(part) for name, part in parts.items()})

    settings = FederateSettings(mechanism="none", timeout_s=_ROUND_S_MAX)
    exchange = MixedRounds(folder, settings, shape, weights_file, None, devices).exchange

    async def all_rounds() -> bool:
        flat = flatten(like)
        for number in range(1, rounds + 1):
            begun_s = time.monotonic()
            found = await exchange(flat, f"round-{number}")
            seconds = time.monotonic() - begun_s
            flat = flat + (found.total / devices).astype(np.float32)
            told(
                ScaleFigures(
                    number=number,
                    seconds=round(seconds, 2),
                    device_ms=round(1000 * seconds / devices, 2),
                    device_bytes=found.received_bytes / devices,
                    processes_mib=_resident_mib(supervisor.pids()["simulation"]),
                )
            )
        await asyncio.to_thread(end_simulation, folder)
        return True

    return await supervisor.run(all_rounds) is True


def _resident_mib(pid: int) -> float:
    parent = psutil.Process(pid)
    found = 0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            found += process.memory_info().rss
        except psutil.NoSuchProcess:
            # One of ray's helpers that has just ended.
            continue
    return round(found / 2**20, 1)


def _examples(device: int) -> list[TrainingExample]:
    return [
        TrainingExample(
            example_id="",
            user="",
            messages=({"role": "user", "content": f"How deep is river {device} at {turn}?"},),
            correction=f"{device} metres.",
        )
        for turn in range(_EXAMPLES)
    ]
