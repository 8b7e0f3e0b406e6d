"""Losses and F1 of `headwater eval federation` by round."""

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
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for arm in dict.fromkeys(one.arm for one in figures):
        own = [one for one in figures if one.arm == arm]
        numbers = [one.number for one in own]
        losses.plot(numbers, [one.loss for one in own], marker="o", label=arm)
        scores.plot(numbers, [one.f1 for one in own], marker="o", label=arm)
    # Noise for few devices makes losses that would flatten all others.
    losses.set_yscale("log")
    losses.set_ylabel("loss by token, held-out questions")
    scores.set_ylabel("F1 of answers, %")
    for axes in (losses, scores):
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
    losses.legend()
    figure.savefig(path)
