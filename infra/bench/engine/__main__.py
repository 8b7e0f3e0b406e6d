"""`make bench-engine`: the engine beside its peers, as ratios within one run."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer

from infra.bench.engine.plot import draw
from infra.bench.engine.requests import Measured, Task
from infra.bench.engine.river import measure_river
from infra.bench.engine.run import RIVER, measure, ratios, tasks
from infra.commands.measuring import on_own_river
from infra.commands.shell import err, out
from infra.measure import percentiles
from schemas.errors import HeadwaterError, SettingsInvalid
from streams.settings import KafkaSettings

app = typer.Typer(add_completion=False)


@app.command()
def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Contestants to run; all without it.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often all of them run.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw tokens a second.")] = None,
) -> None:
    """Measure the engine, Hugging Face's generate, static batches, transformers' continuous
    batching, llama.cpp and the whole river on the same requests. Takes about 10 minutes a round.
    """
    threads = threads or os.cpu_count() or 1
    chosen = [task for task in tasks(threads) if not only or task.contestant in only]
    if not chosen:
        names = sorted({task.contestant for task in tasks(threads)})
        raise SettingsInvalid(f"There is no contestant {only}.", f"They are {', '.join(names)}.")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    out.print(f"{time.strftime('%Y-%m-%d')}, {threads} threads, {device}", markup=False)
    out.print(f"{'':12} open adapters tokens/s  first token p50, p99 ms  between p50, p99 ms")
    found = []
    for number in range(rounds):
        for task in chosen:
            measured = _measure(task)
            measured.round, measured.adapters = number, task.adapters
            found.append(measured)
            out.print(_line(measured), markup=False, highlight=False)
    for name, ratio in ratios(found).items():
        out.print(f"{name}: {'not measured' if ratio is None else ratio}", markup=False)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if plot is not None:
        draw(found, plot)


def _measure(task: Task) -> Measured:
    if task.contestant != RIVER:
        return measure(task)
    figures: list[Measured] = []

    async def work(kafka: KafkaSettings) -> dict[str, object]:
        figures.append(await measure_river(kafka, task))
        return {}

    env = {"HEADWATER_GENERATE_THREADS": str(task.threads)}
    on_own_river(work, ("retrieve", "generate"), env)
    return figures[0]


def _line(measured: Measured) -> str:
    first, gaps = percentiles(measured.first_token_ms), percentiles(measured.inter_token_ms)
    waits = f"{first['p50']!s:>10} {first['p99']!s:>10} {gaps['p50']!s:>12} {gaps['p99']!s:>8}"
    return (
        f"{measured.contestant:12} {measured.concurrency:4} {measured.adapters:8} "
        f"{measured.tokens_per_s:8.1f} {waits if first['n'] else ''} {measured.note}"
    ).rstrip()


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except HeadwaterError as error:
        err.print(str(error), markup=False)
        sys.exit(1)
