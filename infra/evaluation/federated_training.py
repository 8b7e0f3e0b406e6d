"""Devices' training without Flower and the network, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infra.evaluation.federated_devices import Device, Setting
from infra.evaluation.federated_quality import TOKENS_MAX
from infra.fleet.rounds import Exchanged
from models.engine.load import Loaded
from models.federation.aggregation import admit, summed
from models.federation.deltas import Compression, unpack
from models.federation.layout import Arrays, Flat, layout_digest
from models.federation.local_step import local_delta
from models.federation.work import LocalWork
from models.learning.examples import TrainingExample
from models.learning.lora import LoraShape

# Longer than any delta: where nothing is cut.
_NO_LIMIT = 1e9


class Training:
    """The code of real devices and of the server's checks, on one model."""

    def __init__(self, loaded: Loaded, shape: LoraShape, like: Arrays, setting: Setting) -> None:
        self._loaded = loaded
        self._shape = shape
        self._layout = layout_digest(like)
        self._setting = setting

    def moved(self, flat: Flat, examples: Sequence[TrainingExample], round_id: str) -> Flat:
        """How far training on `examples` moves the weights; nothing is cut."""
        payload = self._payload(flat, examples, round_id, _NO_LIMIT, "none")
        return unpack(payload, flat.size)

    def exchange(self, flat: Flat, devices: Sequence[Device], round_id: str) -> Exchanged:
        """A round as the server's code adds up what the devices' code sends."""
        norm_max, total, sizes = self._setting.norm_max, np.zeros(flat.size), 0
        for node, device in enumerate(devices):
            payload = self._payload(
                flat, device.train, round_id, norm_max, self._setting.compression
            )
            total += summed(admit({node: payload}, flat.size, norm_max).deltas)
            sizes += len(payload)
        return Exchanged(total, sizes)

    def _payload(
        self,
        flat: Flat,
        examples: Sequence[TrainingExample],
        round_id: str,
        norm_max: float,
        compression: Compression,
    ) -> bytes:
        work = LocalWork(
            round_id=round_id,
            layout=self._layout,
            rank=self._shape.rank,
            alpha=self._shape.alpha,
            targets=self._shape.targets,
            norm_max=norm_max,
            batch_rows=self._setting.batch_rows,
            examples_max=len(examples),
            learning_rate=self._setting.learning_rate,
            tokens_max=TOKENS_MAX,
            compression=compression,
        )
        return local_delta(self._loaded, work, flat, examples)
