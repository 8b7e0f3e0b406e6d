"""An evaluation's devices as they really are: some as processes, the rest simulated by Flower."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from agents.rounds.settings import FederateSettings
from infra.evaluation.federated_devices import Device, Setting
from infra.evaluation.federation import Exchange, Trial
from infra.fleet.local import fill_store, local_fleet
from infra.fleet.rounds import MixedRounds
from infra.fleet.simulation import end_simulation, simulation_part
from infra.part import Part
from infra.supervisor import Supervisor
from schemas.errors import SettingsInvalid

# A SuperNode is refused, and ends, until its device is admitted.
_DEATHS_MAX = 1_000
_ROUND_S_MAX = 600.0


async def on_fleet(
    trial: Trial,
    devices: Sequence[Device],
    setting: Setting,
    model: str,
    processes: int,
    folder: Path,
    work: Callable[[Exchange], Awaitable[None]],
) -> bool:
    """Does `work` with the first `processes` devices as real ones; False where it was interrupted.

    Raises SettingsInvalid where devices are to be simulated and ray is not installed.
    """
    simulated = len(devices) - processes
    check_simulation(simulated)
    homes = [folder / f"device{number}" for number in range(processes)]
    homes += [folder / "s" / str(number) for number in range(simulated)]
    for home, device in zip(homes, devices, strict=True):
        fill_store(home, device.train)
    env = {"HEADWATER_EDGE_MODEL": model, "HEADWATER_EDGE_NORM_MAX": str(setting.norm_max)}
    fleet = local_fleet(folder, homes[:processes], env) if processes else None
    parts: list[Part] = [] if fleet is None else fleet.parts
    if simulated:
        parts = [*parts, simulation_part(folder, folder / "s", simulated, env)]
    rounds = MixedRounds(
        folder, _settings(setting), trial.shape, trial.weights_file, fleet, simulated
    )

    async def on_parts() -> bool:
        if fleet is not None:
            await asyncio.to_thread(fleet.admit)
            await fleet.until_online(processes)
        await work(rounds.exchange)
        if simulated:
            await asyncio.to_thread(end_simulation, folder)
        return True

    return await Supervisor(parts, folder, deaths_max=_DEATHS_MAX).run(on_parts) is True


def check_simulation(simulated: int) -> None:
    """Raises SettingsInvalid where there is something to simulate and no ray to do it."""
    if simulated and find_spec("ray") is None:
        raise SettingsInvalid(
            "Flower simulates devices on ray, which is not installed.",
            'Install the extra: uv pip install -e ".[simulation]". Or give --in-process.',
        )


def _settings(setting: Setting) -> FederateSettings:
    """What real rounds would be set to; the noise is the trial's own."""
    return FederateSettings(
        mechanism="none",
        norm_max=setting.norm_max,
        batch_rows=setting.batch_rows,
        examples_max=setting.train,
        learning_rate=setting.learning_rate,
        compression=setting.compression,
        timeout_s=_ROUND_S_MAX,
    )
