"""Tokens a second against open requests."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from infra.bench.engine.requests import Measured


def draw(found: Sequence[Measured], path: Path) -> None:
    """Writes a picture; of several rounds, the median. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="requests open at a time", ylabel="tokens a second")
    marks = {
        "headwater": "o-",
        "river": "s",
        "static": "^--",
        "transformers": "v",
        "llama.cpp": "D",
    }
    for contestant in dict.fromkeys(m.contestant for m in found):
        for adapters in sorted({m.adapters for m in found if m.contestant == contestant}):
            points = _medians(
                [m for m in found if (m.contestant, m.adapters) == (contestant, adapters)]
            )
            label = contestant + (f", {adapters} adapters" if adapters else "")
            mark = "x" if adapters else marks.get(contestant, "*")
            axes.plot([x for x, _ in points], [y for _, y in points], mark, label=label)
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=150)


def _medians(found: Sequence[Measured]) -> list[tuple[int, float]]:
    sizes = sorted({m.concurrency for m in found})
    return [
        (size, statistics.median(m.tokens_per_s for m in found if m.concurrency == size))
        for size in sizes
    ]
