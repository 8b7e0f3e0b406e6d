"""Devices that teach together, alone, in private, and as if their data were in one place.

Each device has the questions of a stretch of a SQuAD file, so mostly of one article: non-IID.
Federated rounds are real: Flower's processes, Flower's simulation or both (`infra/fleet/`), or in
this process the same code without them. Devices alone and data in one place need no federation.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import torch

from infra.evaluation.federated_devices import Device, RoundFigures, Setting
from infra.evaluation.federated_quality import Quality
from infra.evaluation.federated_training import Training
from infra.fleet.rounds import Exchanged
from models.engine.load import Loaded
from models.federation.deltas import norm_of
from models.federation.layout import Flat, flatten, unflatten
from models.learning.adapter_files import artifact_bytes
from models.learning.lora import LoraShape, new_adapter
from models.privacy.mechanism import Mechanism, open_mechanism
from models.privacy.plan import make_plan

Arm = Literal["local", "federated", "federated-private", "centralised"]
ARMS: tuple[Arm, ...] = ("local", "federated", "federated-private", "centralised")
# From the weights and the round's name to what the devices sent.
Exchange = Callable[[Flat, str], Awaitable[Exchanged]]
Told = Callable[[RoundFigures], None]


class Trial:
    """All arms on one model."""

    def __init__(self, loaded: Loaded, devices: Sequence[Device], setting: Setting) -> None:
        self._devices = devices
        self._setting = setting
        self.shape = LoraShape()
        adapter = new_adapter(loaded.model, self.shape)
        self._like = {name: t.float().cpu().numpy() for name, t in adapter.items()}
        self._training = Training(loaded, self.shape, self._like, setting)
        self._quality = Quality(loaded, self.shape, self._like)

    async def run(self, arm: Arm, told: Told, exchange: Exchange | None = None) -> None:
        """The rounds of one arm; round 0 is before any.

        Federated arms exchange by `exchange`; None does their rounds in this process.
        """
        start = flatten(self._like)
        weights = [start] * (len(self._devices) if arm == "local" else 1)
        mechanism = self._mechanism(start.size) if arm == "federated-private" else None
        told(msgspec.structs.replace(self._before, arm=arm))
        for number in range(1, self._setting.rounds + 1):
            begun_s = time.monotonic()
            before, sent = weights, 0.0
            if arm == "local":
                weights = [
                    self._taught(flat, device, number)
                    for flat, device in zip(weights, self._devices, strict=True)
                ]
            elif arm == "centralised":
                together = [example for device in self._devices for example in device.train]
                weights = [self._taught(weights[0], Device(together, []), number)]
            else:
                found = await (exchange or self._exchange_here)(weights[0], f"{arm}-{number}")
                weights = [weights[0] + self._mean(found, mechanism, number)]
                sent = found.received_bytes / len(self._devices)
            seconds = time.monotonic() - begun_s
            told(self._figures(arm, number, before, weights, seconds, sent))

    @cached_property
    def _before(self) -> RoundFigures:
        """Before any round, which is the same for all arms."""
        start = [flatten(self._like)]
        return self._figures("federated", 0, start, start, 0.0, 0.0)

    def weights_file(self, flat: Flat) -> bytes:
        """The adapter's file with these weights."""
        parts = unflatten(flat, self._like)
        return artifact_bytes({name: torch.from_numpy(part) for name, part in parts.items()})

    async def _exchange_here(self, flat: Flat, round_id: str) -> Exchanged:
        return self._training.exchange(flat, self._devices, round_id)

    def _taught(self, flat: Flat, device: Device, number: int) -> Flat:
        return flat + self._training.moved(flat, device.train, f"round-{number}")

    def _mean(self, found: Exchanged, mechanism: Mechanism | None, number: int) -> Flat:
        """The server's step: the sum, with the noise that it adds, over the number of devices."""
        total = found.total
        if mechanism is not None:
            sums = {"sum": torch.from_numpy(total)}
            seed = number.to_bytes(8, "little")
            total = mechanism.privatise(sums, self._setting.norm_max, seed)["sum"].numpy()
        mean: Flat = (total / len(self._devices)).astype(np.float32)
        return mean

    def _mechanism(self, size: int) -> Mechanism:
        rounds = self._setting.rounds
        plan = make_plan(
            "gaussian",
            epsilon=self._setting.epsilon,
            delta=1e-6,
            rounds_max=rounds,
            participations_max=rounds,
        )
        return open_mechanism(plan, {"sum": (size,)})

    def _figures(
        self,
        arm: Arm,
        number: int,
        before: Sequence[Flat],
        weights: Sequence[Flat],
        seconds: float,
        device_bytes: float,
    ) -> RoundFigures:
        own = [device.held_out for device in self._devices]
        everybodys = [one for held_out in own for one in held_out]
        alone = len(weights) > 1
        groups = list(zip(weights, own, strict=True)) if alone else [(weights[0], everybodys)]
        steps = [norm_of(new - old) for old, new in zip(before, weights, strict=True)]
        return RoundFigures(
            arm=arm,
            number=number,
            loss=round(float(np.mean([self._quality.loss(*group) for group in groups])), 4),
            seconds=round(seconds, 2),
            device_bytes=device_bytes,
            norm=round(float(np.median(steps)), 4),
            rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            f1=round(float(np.mean([self._quality.f1(*group) for group in groups])), 2),
        )
