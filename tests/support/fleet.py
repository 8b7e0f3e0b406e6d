"""A real SuperLink behind its gate, and real devices with the tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infra.fleet.local import LocalFleet, fill_store, local_fleet
from models.learning.examples import TrainingExample


def make_fleet(
    folder: Path, model: Path, devices: int, env: Mapping[str, str] | None = None
) -> LocalFleet:
    """Parts of a server and of `devices` devices, each with two examples of its own."""
    homes = [folder / f"owner{number}" for number in range(devices)]
    for number, home in enumerate(homes):
        add_examples(home, number)
    settings = {
        "HEADWATER_EDGE_MODEL": str(model),
        "HEADWATER_EDGE_DTYPE": "float32",
        "HEADWATER_EDGE_DEVICE": "cpu",
        **(env or {}),
    }
    return local_fleet(folder, homes, settings)


def add_examples(home: Path, number: int) -> None:
    """Two corrections that no other device has."""
    fill_store(home, [_example(number, turn) for turn in range(2)])


def _example(number: int, turn: int) -> TrainingExample:
    question = f"What does owner {number} ask of river {turn}?"
    return TrainingExample(
        example_id="",
        user="",
        messages=({"role": "user", "content": question},),
        correction=f"Nine metres, says {number}.",
    )
