"""What devices of an evaluation hold, and the figures of their rounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from infra.evaluation.squad import Answered, read_answered
from models.federation.deltas import Compression
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid

_CONTEXT_CHARS_MAX = 600


@dataclass(frozen=True)
class Setting:
    """Of all arms; each device has `train` questions to learn from and `held_out` for the test."""

    devices: int
    rounds: int
    train: int
    held_out: int
    norm_max: float
    epsilon: float
    compression: Compression = "none"
    learning_rate: float = 1e-3
    batch_rows: int = 4


class RoundFigures(msgspec.Struct):
    """After a round; `loss` is by token and `f1` of answers, on held-out questions.

    `norm` is how far the weights moved, the median of all that moved apart.
    """

    arm: str
    number: int
    loss: float
    seconds: float
    device_bytes: float
    norm: float
    rss_mib: float
    f1: float


@dataclass(frozen=True)
class Device:
    """What one device holds."""

    train: list[TrainingExample]
    held_out: list[TrainingExample]


def read_devices(path: Path, setting: Setting) -> list[Device]:
    """The file cut into stretches. Raises DataInvalid where it has too few questions."""
    found = read_answered(path, _CONTEXT_CHARS_MAX)
    stretch = len(found) // setting.devices
    needed = setting.train + setting.held_out
    if stretch < needed:
        raise DataInvalid(
            f"{len(found)} questions make {stretch} for each of {setting.devices} devices.",
            f"Ask for fewer devices, or fewer than {needed} questions of each.",
        )
    devices = []
    for number in range(setting.devices):
        own = [_example(one, number) for one in found[number * stretch :][:needed]]
        devices.append(Device(own[: setting.train], own[setting.train :]))
    return devices


def _example(one: Answered, device: int) -> TrainingExample:
    return TrainingExample(
        example_id=f"{device}/{one.prompt[-80:]}",
        user=f"device-{device}",
        messages=({"role": "user", "content": one.prompt},),
        correction=one.answer,
    )
