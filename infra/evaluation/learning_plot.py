"""Losses of one or more replays against events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import SettingsInvalid


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a picture: the test loss of each replay as a line, the prequential loss behind it.

    Raises SettingsInvalid where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsInvalid(
            "A plot needs matplotlib, which is not installed.", "Run `pip install matplotlib`."
        ) from error
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="events", ylabel="loss by token")
    for number, result in enumerate(results):
        setting, color = result["setting"], f"C{number}"
        epsilon = "" if result["epsilon"] is None else f", epsilon {result['epsilon']:.3g}"
        curve, before = result["test_curve"], result["prequential"]
        events, losses = [p["events"] for p in curve], [p["test_loss"] for p in curve]
        axes.plot(events, losses, color=color, marker="o", label=setting["mode"] + epsilon)
        axes.plot([p["events"] for p in before], [p["loss"] for p in before], color, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
