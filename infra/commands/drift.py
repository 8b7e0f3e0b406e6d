"""`headwater eval drift`: the monitor's detectors side by side, on ratings drawn at random."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from agents.monitor.settings import MonitorSettings
from infra.commands.shell import AsJson, out, print_json
from streams.settings import load


def drift(
    ratings: Annotated[
        list[int] | None, typer.Option(min=1, help="Ratings of a window; may be repeated.")
    ] = None,
    fall: Annotated[float, typer.Option(min=0, max=1.6, help="Of the mean rating.")] = 0.2,
    runs: Annotated[int, typer.Option(min=1, help="Each with draws of its own.")] = 200,
    spread: Annotated[
        float, typer.Option(min=0, help="How the share of thumbs up varies by window.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Say how soon each detector finds that ratings fell, with the settings of the monitor."""
    from infra.evaluation.drift import RATINGS, WINDOWS_MAX, compare
    from infra.evaluation.tracked import track_evaluation

    watch = load(MonitorSettings).watch
    found = [
        each
        for count in ratings or [100, 200, 400, 600]
        for each in compare(count, fall, runs, spread, watch)
    ]
    track_evaluation(
        "drift",
        {f"{each.ratings}/{each.detector}": msgspec.to_builtins(each) for each in found},
        {"fall": fall, "runs": runs, "spread": spread},
    )
    if as_json:
        for outcome in found:
            print_json(msgspec.to_builtins(outcome))
        return
    table = Table(
        "ratings a window",
        "detector",
        f"alarms in {RATINGS:,} without",
        "found in 2 windows",
        "median",
        "95 %",
        box=None,
    )
    for each in found:
        table.add_row(
            str(each.ratings),
            each.detector,
            f"{each.false_alarms:.1%}",
            f"{each.within_two:.1%}",
            _windows(each.median_windows, WINDOWS_MAX),
            _windows(each.slow_windows, WINDOWS_MAX),
        )
    out.print(table)


def _windows(count: float, most: int) -> str:
    return f"over {most}" if math.isinf(count) else f"{count:g}"
