"""Evaluations in MLflow and TensorBoard: a run each, its numbers as metrics, all of it as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agents.tracking.settings import TrackSettings
from infra.commands.shell import err
from schemas.clock import now_ms
from streams.settings import load

PART = "evaluations"


def track_evaluation(
    name: str,
    figures: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    details: Any = None,
) -> None:
    """Writes a run of this name and time, where tracking is on.

    `figures` may be nested; `settings` become parameters; `details` are kept as a file, by default
    the figures themselves. What cannot be written is said and forgotten: the figures are printed
    all the same.
    """
    track = load(TrackSettings)
    if not track.on:
        return
    # Imported late: MLflow takes seconds.
    from agents.tracking.points import Point
    from agents.tracking.sinks import Sinks

    at_ms = now_ms()
    point = Point(
        run=f"{name}-{at_ms}",
        at_ms=at_ms,
        metrics=dict(_numbers(figures)),
        params={key: str(value) for key, value in (settings or {}).items()},
        tags={"kind": "evaluation", "evaluation": name},
        ended="FINISHED",
    )
    try:
        sinks = Sinks(track, PART)
        try:
            sinks.attach(point, msgspec.to_builtins(figures if details is None else details))
            sinks.write(point)
        finally:
            sinks.close()
    except Exception as error:
        # A store has many errors of its own, and minutes of work are not lost for any of them.
        err.print(
            f"warning: not tracked: {type(error).__name__}: {error}", style="yellow", markup=False
        )


def _numbers(figures: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers by the path that leads to them; a list's items by their places."""
    if isinstance(figures, Mapping):
        for key, value in figures.items():
            yield from _numbers(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(figures, list | tuple):
        for place, value in enumerate(figures):
            yield from _numbers(value, f"{prefix}/{place}")
    elif isinstance(figures, int | float) and math.isfinite(figures):
        yield prefix, float(figures)
