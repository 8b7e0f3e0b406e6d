"""Perplexities of `headwater eval documents` by passages studied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.evaluation.documents import Point
from schemas.errors import SettingsInvalid


def draw(points: Sequence[Point], path: Path) -> None:
    """Relative to before, one line for each kind of text. Raises SettingsInvalid where matplotlib
    is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsInvalid(
            "A plot needs matplotlib, which is not installed.", "Install it, or leave --plot out."
        ) from error
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name in ("to_come", "old", "general", "packages", "chat"):
        values = [100 * (getattr(point, name) / getattr(points[0], name) - 1) for point in points]
        axes.plot([point.passages for point in points], values, marker="o", label=name)
    axes.axhline(2.0, color="gray", linestyle="dotted")
    axes.set_xlabel("passages studied")
    axes.set_ylabel("perplexity, change in %")
    axes.legend()
    figure.savefig(path)
