"""Devices that teach together, alone, in private, and as if their data were in one place.

Each device has the questions of a stretch of a SQuAD file, so mostly of one article: non-IID. The
devices' training, packing, checking and the server's noise are the code of real rounds; what is
left out is Flower and the network, so that a thousand devices fit into one process.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from infra.evaluation.federated_devices import Device, RoundFigures, Setting
from infra.evaluation.text_scores import word_f1
from models.engine.load import Loaded
from models.federation.aggregation import admit, summed
from models.federation.deltas import norm_of, unpack
from models.federation.layout import Flat, flatten, layout_digest, unflatten
from models.federation.local_step import local_delta
from models.federation.work import LocalWork
from models.learning.examples import TrainingExample
from models.learning.learner import encode_example, end_token_of
from models.learning.lora import LoraShape, new_adapter
from models.learning.quality import greedy_answers, mean_loss
from models.learning.user_gradients import AdaptedModel
from models.privacy.mechanism import Mechanism, open_mechanism
from models.privacy.plan import make_plan

Arm = Literal["local", "federated", "federated-private", "centralised"]
ARMS: tuple[Arm, ...] = ("local", "federated", "federated-private", "centralised")

_TOKENS_MAX = 384
_ANSWER_TOKENS_MAX = 16
# Longer than any delta: for arms in which nothing is cut.
_NO_LIMIT = 1e9


class Trial:
    """All arms on one model."""

    def __init__(self, loaded: Loaded, devices: Sequence[Device], setting: Setting) -> None:
        self._loaded = loaded
        self._devices = devices
        self._setting = setting
        self._shape = LoraShape()
        self._like = {
            name: t.float().cpu().numpy()
            for name, t in new_adapter(loaded.model, self._shape).items()
        }
        self._end_token = end_token_of(loaded)

    def run(self, arm: Arm, told: Callable[[RoundFigures], None]) -> None:
        """The rounds of one arm; round 0 is before any."""
        start = flatten(self._like)
        weights = [start] * (len(self._devices) if arm == "local" else 1)
        mechanism = self._mechanism(start.size)
        told(self._figures(arm, 0, weights, 0.0, [], 0.0, f1=True))
        for number in range(1, self._setting.rounds + 1):
            begun_s = time.monotonic()
            norms: list[float] = []
            sizes: list[int] = []
            if arm == "local":
                weights = [
                    flat + self._moved(flat, device.train, number, _NO_LIMIT, norms, sizes)
                    for flat, device in zip(weights, self._devices, strict=True)
                ]
            elif arm == "centralised":
                together = [example for device in self._devices for example in device.train]
                step = self._moved(weights[0], together, number, _NO_LIMIT, norms, sizes)
                weights = [weights[0] + step]
            else:
                private = mechanism if arm == "federated-private" else None
                weights = [self._together(weights[0], number, norms, sizes, private)]
            seconds = time.monotonic() - begun_s
            sent = float(np.mean(sizes)) if arm.startswith("federated") else 0.0
            last = number == self._setting.rounds
            told(self._figures(arm, number, weights, seconds, norms, sent, f1=last))

    def _together(
        self,
        flat: Flat,
        number: int,
        norms: list[float],
        sizes: list[int],
        mechanism: Mechanism | None,
    ) -> Flat:
        """One federated round, as the server's code adds up what the devices' code sends."""
        norm_max = self._setting.norm_max
        total = np.zeros(flat.size)
        for node, device in enumerate(self._devices):
            payload = self._payload(flat, device.train, number, norm_max)
            sizes.append(len(payload))
            admitted = admit({node: payload}, flat.size, norm_max)
            norms.append(norm_of(admitted.deltas[node]))
            total += summed(admitted.deltas)
        if mechanism is not None:
            sums = {"sum": torch.from_numpy(total)}
            total = mechanism.privatise(sums, norm_max, number.to_bytes(8, "little"))["sum"].numpy()
        moved: Flat = (total / len(self._devices)).astype(np.float32)
        return flat + moved

    def _moved(
        self,
        flat: Flat,
        examples: list[TrainingExample],
        number: int,
        norm_max: float,
        norms: list[float],
        sizes: list[int],
    ) -> Flat:
        payload = self._payload(flat, examples, number, norm_max)
        delta = unpack(payload, flat.size)
        norms.append(norm_of(delta))
        sizes.append(len(payload))
        return delta

    def _payload(
        self, flat: Flat, examples: list[TrainingExample], number: int, norm_max: float
    ) -> bytes:
        setting = self._setting
        work = LocalWork(
            round_id=f"round-{number}",
            layout=layout_digest(self._like),
            rank=self._shape.rank,
            alpha=self._shape.alpha,
            targets=self._shape.targets,
            norm_max=norm_max,
            batch_rows=setting.batch_rows,
            examples_max=len(examples),
            learning_rate=setting.learning_rate,
            tokens_max=_TOKENS_MAX,
            compression="none" if norm_max == _NO_LIMIT else setting.compression,
        )
        return local_delta(self._loaded, work, flat, examples)

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
        weights: Sequence[Flat],
        seconds: float,
        norms: Sequence[float],
        device_bytes: float,
        f1: bool,
    ) -> RoundFigures:
        alone = arm == "local" and number > 0
        groups = (
            [(flat, device.held_out) for flat, device in zip(weights, self._devices, strict=True)]
            if alone
            else [(weights[0], [one for device in self._devices for one in device.held_out])]
        )
        losses = [self._loss(flat, held_out) for flat, held_out in groups]
        found = [self._f1(flat, held_out) for flat, held_out in groups] if f1 else []
        return RoundFigures(
            arm=arm,
            number=number,
            loss=round(float(np.mean(losses)), 4),
            seconds=round(seconds, 2),
            device_bytes=device_bytes,
            norm=round(float(np.median(norms)), 4) if norms else 0.0,
            rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            f1=round(float(np.mean(found)), 2) if found else None,
        )

    def _loss(self, flat: Flat, held_out: Sequence[TrainingExample]) -> float:
        answers = [
            encode_example(self._loaded.tokenizer, self._end_token, one, _TOKENS_MAX).answer
            for one in held_out
        ]
        model = AdaptedModel(self._loaded.model, self._shape)
        try:
            return mean_loss(model, self._tensors(flat), answers)
        finally:
            model.close()

    def _f1(self, flat: Flat, held_out: Sequence[TrainingExample]) -> float:
        model = AdaptedModel(self._loaded.model, self._shape)
        try:
            answers = greedy_answers(
                model,
                self._tensors(flat),
                self._loaded.tokenizer,
                self._end_token,
                [one.messages for one in held_out],
                _ANSWER_TOKENS_MAX,
            )
        finally:
            model.close()
        scores = [
            word_f1(answer, one.correction or "")
            for answer, one in zip(answers, held_out, strict=True)
        ]
        return 100.0 * float(np.mean(scores))

    def _tensors(self, flat: Flat) -> dict[str, torch.Tensor]:
        device = self._loaded.model.device
        parts = unflatten(flat, self._like)
        return {name: torch.tensor(part, device=device) for name, part in parts.items()}
