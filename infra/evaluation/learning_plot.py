"""Losses of one or more replays against events, and their BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import SettingsInvalid

_STYLES = {"none": "-", "gaussian": "--", "correlated": "-.", "opacus": ":"}


def draw(static: dict[str, float], runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a picture: test loss against events on the left, with the prequential loss behind it,
    and the test BLEU of each run on the right.

    Raises SettingsInvalid where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsInvalid(
            "A plot needs matplotlib, which is not installed.", "Run `pip install matplotlib`."
        ) from error
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    losses, bleu = figure.subplots(1, 2, width_ratios=(2, 1))
    losses.set(xlabel="corrections", ylabel="loss by token")
    losses.axhline(static["loss"], color="grey", linewidth=1)
    names, scores, colors = ["static"], [static["bleu"]], ["grey"]
    for number, run in enumerate(runs):
        name, color = _name(run), f"C{number % 10}"
        style = _STYLES[run["setting"]["mode"]]
        curve, before = run["test_curve"], run["prequential"]
        losses.plot(*_points(curve, "test_loss"), style, color=color, marker="o", label=name)
        losses.plot(*_points(before, "loss"), color=color, alpha=0.25, linewidth=1)
        names, scores, colors = [*names, name], [*scores, run["final"]["bleu"]], [*colors, color]
    losses.legend()
    bars = bleu.barh(names, scores, color=colors)
    bleu.bar_label(bars, fmt="%.1f")
    bleu.invert_yaxis()
    bleu.set(xlabel="test BLEU")
    figure.savefig(path, dpi=150)


def _name(run: dict[str, Any]) -> str:
    epsilon = "" if run["epsilon"] is None else f", ε = {run['epsilon']:.3g}"
    return f"{run['setting']['mode']}{epsilon}"


def _points(points: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    return [point["events"] for point in points], [point[name] for point in points]
