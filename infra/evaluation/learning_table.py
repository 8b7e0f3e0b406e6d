"""Replays side by side: what each keeps of what learning without privacy gains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import DataInvalid

Run = dict[str, Any]


def table(static: dict[str, float], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for the static model and for each run.

    `loss_kept` and `bleu_kept` are shares of the gain of the first run of mode none over the static
    model, in per cent; None where there is no such run or no such gain.
    """
    best = next((run["final"] for run in runs if run["setting"]["mode"] == "none"), None)
    rows: list[dict[str, Any]] = [{"mode": "static", "epsilon": 0.0, **static}]
    for run in runs:
        final = run["final"]
        row = {"mode": run["setting"]["mode"], "epsilon": run["epsilon"], **final}
        for name in ("loss", "bleu"):
            row[f"{name}_kept"] = best and _share(static[name], final[name], best[name])
        rows.append(row | {"events": run["events"], "seconds": run["seconds"]})
    return rows


def _share(static: float, found: float, best: float) -> float | None:
    return round(100.0 * (static - found) / (static - best), 1) if static != best else None


def write_results(path: Path, static: dict[str, float], runs: Sequence[Run]) -> None:
    """All figures as JSON: `static`, `table`, `runs`."""
    result = {"static": static, "table": table(static, runs), "runs": list(runs)}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read_results(path: Path) -> tuple[dict[str, float], list[Run]]:
    """The static scores and the runs of a file of `write_results`. Raises DataInvalid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found["static"]), list(found["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataInvalid(
            f"{path} holds no results of headwater eval learning: {error!r}.",
            "Name a file that it wrote with --json, or leave --add out.",
        ) from error
