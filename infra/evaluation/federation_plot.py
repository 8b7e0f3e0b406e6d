"""Losses of `headwater eval federation` by round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.evaluation.federated_devices import RoundFigures
from schemas.errors import SettingsInvalid


def draw(figures: Sequence[RoundFigures], path: Path) -> None:
    """One line for each arm. Raises SettingsInvalid where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsInvalid(
            "A plot needs matplotlib, which is not installed.", "Install it, or leave --plot out."
        ) from error
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for arm in dict.fromkeys(one.arm for one in figures):
        own = [one for one in figures if one.arm == arm]
        axes.plot([one.number for one in own], [one.loss for one in own], marker="o", label=arm)
    axes.set_xlabel("round")
    axes.set_ylabel("loss by token, held-out questions")
    axes.legend()
    figure.savefig(path)
