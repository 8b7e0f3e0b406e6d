"""`headwater eval learning`: private and non-private learning, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer
from rich.table import Column, Table

from infra.commands.progress import progress
from infra.commands.shell import err, out
from schemas.errors import SettingsInvalid

if TYPE_CHECKING:
    from infra.evaluation.learning import Setting
    from infra.evaluation.learning_runs import Stream
    from models.learning.lora import Trained

# The scores of the static model, and of each run.
Results = tuple[dict[str, float], list[dict[str, Any]]]
_Mode = Literal["none", "gaussian", "correlated", "opacus"]
_MODES: tuple[_Mode, ...] = get_args(_Mode)


def learning(
    dataset: Annotated[Path, typer.Option(help="Folder of the E2E data set.")],
    mode: Annotated[
        list[str] | None,
        typer.Option(help="none, gaussian, correlated, opacus or all; may be repeated."),
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="Privacy budget [8]; may be repeated.")
    ] = None,
    delta: Annotated[float, typer.Option()] = 1e-6,
    limit: Annotated[int | None, typer.Option(min=1, help="Corrections to learn from.")] = None,
    per_user: Annotated[int, typer.Option(min=1, help="Each user gives 1 to this many.")] = 1,
    participations: Annotated[int, typer.Option(min=1, help="Cohorts a user may be in.")] = 1,
    separation: Annotated[int, typer.Option(min=1, help="Cohorts from one to the next.")] = 1,
    cohort: Annotated[int, typer.Option(min=1, help="Users in a cohort.")] = 64,
    rate: Annotated[float | None, typer.Option(help="Learning rate, not the mode's own.")] = None,
    clip: Annotated[float | None, typer.Option(help="Clipping norm, not the default.")] = None,
    trained: Annotated[
        str | None, typer.Option(help="both matrices of the adapter or b, not the mode's own.")
    ] = None,
    test: Annotated[int, typer.Option(min=1, help="Test questions to be answered.")] = 100,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw losses against events.")] = None,
    add: Annotated[bool, typer.Option(help="Keep the runs that the JSON file holds.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once [one a core, where memory lasts; one on a GPU]."),
    ] = None,
) -> None:
    """Replay corrections as a stream through the learner, without Kafka, and score the result.

    Each mode runs at each epsilon, none once; what is done is in the JSON file even if the rest is
    interrupted. Noise is drawn anew for each run. A run of the default model takes 4 GB of memory.
    """
    from infra.evaluation.learning import Setting
    from infra.evaluation.learning_plot import draw
    from infra.evaluation.learning_runs import Stream
    from infra.evaluation.learning_table import read_results, table
    from infra.evaluation.tracked import track_evaluation
    from models.learning.e2e import read_corrections, read_test

    settings = [
        replace(
            Setting.of(name, budget, cohort),
            delta=delta,
            examples_per_user_max=1 if name == "opacus" else per_user,
            participations_max=participations,
            separation_min=separation,
        ).tuned(rate, clip, _trained(trained))
        for name in _modes(mode or ["correlated"])
        for budget in (list(epsilon or [8.0]) if name != "none" else [8.0])
    ]
    check_writable(json_file, plot)
    results = read_results(json_file) if add and json_file else ({}, [])
    stream = Stream(read_corrections(dataset, limit, per_user), read_test(dataset, test))
    static, runs = _learned(settings, stream, results, json_file, jobs)
    if plot is not None:
        draw(static, runs, plot)
    rows = table(static, runs)
    _print(rows)
    track_evaluation(
        "learning",
        {_named(row): row for row in rows},
        {"dataset": dataset.name, "cohort": cohort, "limit": limit, "delta": delta},
        {"static": static, "runs": runs},
    )


def _learned(
    settings: Sequence[Setting],
    stream: Stream,
    before: Results,
    json_file: Path | None,
    jobs: int | None,
) -> Results:
    """What was known before, and a run of each setting; the file holds each as soon as it ends."""
    from infra.evaluation.learning import rounds_of
    from infra.evaluation.learning_runs import jobs_max, replays
    from infra.evaluation.learning_table import write_results

    cohorts = sum(rounds_of(stream.corrections, setting) for setting in settings)
    static, known = before
    found: dict[int, dict[str, Any]] = {}
    with replays(stream, jobs or jobs_max(len(settings))) as work:
        if not static:
            with progress("static model"):
                static = work.static()
        with progress(f"cohorts of {len(settings)} runs") as report:
            for number, run in work.run(settings, static, report, cohorts):
                found[number] = run
                if json_file is not None:
                    write_results(json_file, static, _in_order(known, found))
    return static, _in_order(known, found)


def _in_order(
    known: list[dict[str, Any]], found: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    return known + [found[number] for number in sorted(found)]


def _trained(given: str | None) -> Trained | None:
    from models.learning.lora import Trained

    if given is not None and given not in get_args(Trained):
        raise SettingsInvalid(f"An adapter's part {given} is not known.", "Write both or b.")
    return cast("Trained | None", given)


def _named(row: dict[str, Any]) -> str:
    """A row among others of one run: its mode, and its budget where it has one."""
    return f"{row['mode']} {row['epsilon']:g}" if row["epsilon"] else str(row["mode"])


def _modes(given: list[str]) -> list[_Mode]:
    if unknown := set(given) - {*_MODES, "all"}:
        raise SettingsInvalid(
            f"There is no mode {', '.join(sorted(unknown))}.",
            f"They are {', '.join(_MODES)} and all.",
        )
    return [name for name in _MODES if name in given or "all" in given]


def check_writable(*files: Path | None) -> None:
    """Raises SettingsInvalid before the work of minutes, not after it."""
    for file in files:
        if file is not None and not file.absolute().parent.is_dir():
            raise SettingsInvalid(
                f"{file} is in a folder that does not exist.", "Make the folder first."
            )


def _print(rows: list[dict[str, Any]]) -> None:
    names = {"loss": "test loss", "bleu": "BLEU", "rouge_l": "ROUGE-L"}
    names |= {"loss_kept": "loss kept, %", "bleu_kept": "BLEU kept, %", "seconds": "s"}
    found = Table(Column("mode", no_wrap=True), "ε", *names.values())
    for row in rows:
        budget = "∞" if row["epsilon"] is None else f"{row['epsilon']:.3g}"
        found.add_row(row["mode"], budget, *(_cell(row.get(name)) for name in names))
    out.print(found)
    err.print("Kept: of the gain of mode none over the static model.", style="dim")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
