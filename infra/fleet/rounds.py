"""Rounds over real devices and simulated ones at once; the two sums are added."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.rounds.flower_round import ADAPTER_FILE, RoundResult, read_result, run_config, run_round
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import RunStatus
from infra.fleet.local import LocalFleet
from infra.fleet.simulation import simulated_round
from models.federation.layout import Flat
from models.learning.lora import LoraShape


@dataclass(frozen=True)
class Exchanged:
    """What a round brought: the sum of all deltas, shape (parameters,), and all their bytes."""

    total: NDArray[np.float64]
    received_bytes: int


@dataclass(frozen=True)
class MixedRounds:
    """`fleet` has the real devices, the process in `folder` simulates `simulated` more.

    `weights_file` makes the file of the adapter's weights.
    """

    folder: Path
    settings: FederateSettings
    shape: LoraShape
    weights_file: Callable[[Flat], bytes]
    fleet: LocalFleet | None
    simulated: int

    async def exchange(self, flat: Flat, round_id: str) -> Exchanged:
        """One round from the weights `flat`. Raises what a real round does."""
        halves = [self._real] * (self.fleet is not None) + [self._simulated] * bool(self.simulated)
        content = self.weights_file(flat)
        results = await asyncio.gather(*(half(content, round_id) for half in halves))
        return Exchanged(
            np.sum([result.total for result in results], axis=0),
            sum(result.outcome.received_bytes for result in results),
        )

    async def _real(self, content: bytes, round_id: str) -> RoundResult:
        assert self.fleet is not None
        settings = self._settings_for(len(self.fleet.devices))
        folder = self._prepared(f"{round_id}-real", content)
        link = self.fleet.open()
        try:
            online = [node for node in await asyncio.to_thread(link.nodes) if node.online]
            nodes = {node.node_id: node.owner for node in online}
            return await run_round(link, settings, self.shape, round_id, folder, nodes)
        finally:
            link.close()

    async def _simulated(self, content: bytes, round_id: str) -> RoundResult:
        folder = self._prepared(f"{round_id}-simulated", content)
        settings = self._settings_for(self.simulated)
        config: dict[str, Any] = run_config(settings, self.shape, round_id, folder, {})
        await asyncio.to_thread(simulated_round, self.folder, config)
        return read_result(folder, RunStatus("completed", ""))

    def _settings_for(self, devices: int) -> FederateSettings:
        return self.settings.model_copy(update={"devices": devices, "devices_min": devices})

    def _prepared(self, name: str, content: bytes) -> Path:
        folder = self.folder / "rounds" / name
        folder.mkdir(parents=True)
        (folder / ADAPTER_FILE).write_bytes(content)
        return folder
