"""`headwater learn tune`: which settings teach best, found out beside the running river."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from agents.adapting.settings import AdaptSettings, guards_learning
from agents.settings import GenerateSettings, LearnSettings
from infra.commands.gate_set import make_gate_set
from infra.commands.shell import AsJson, err, out, print_json, run
from models.background import be_nice
from streams.settings import KafkaSettings, load

if TYPE_CHECKING:
    from agents.tuning.contest import Contest
    from agents.tuning.rules import TuningRules


def tune(
    rate: Annotated[
        list[float] | None, typer.Option(help="Learning rates [half, once, twice the present].")
    ] = None,
    rank: Annotated[list[int] | None, typer.Option(help="Ranks [the present one].")] = None,
    norm: Annotated[list[float] | None, typer.Option(help="Clipping norms [the same].")] = None,
    cohort: Annotated[list[int] | None, typer.Option(help="Cohort sizes [the same].")] = None,
    users: Annotated[int, typer.Option(min=1, help="Examples of the first rung.")] = 64,
    epsilon: Annotated[
        float | None, typer.Option(help="Budget of all candidates together, on private examples.")
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="Examples that are nobody's secret, JSONL; not the topic.")
    ] = None,
    name: Annotated[str, typer.Option(help="One that is known goes on where it was.")] = "tune",
    as_json: AsJson = False,
) -> None:
    """Let candidates learn from the stream and halve them until one is left; say its settings.

    No candidate ever serves. It follows the topic of examples while the river flows, and can be
    stopped and started again at any time.
    """
    # Imported late: torch.
    import torch

    from agents.learning.adapter_learning import model_name
    from agents.tuning.contest import Contest
    from agents.tuning.stream import tune_on_file, tune_on_topic

    settings = load(LearnSettings)
    rules = _rules(settings, rate, rank, norm, cohort, users, epsilon, public is not None, name)
    rules.check(settings)
    make_gate_set()
    be_nice(settings.nice)
    torch.set_num_threads(settings.threads)
    model = model_name(settings, load(GenerateSettings))
    if public is None:
        kafka = load(KafkaSettings)
        contest = run(tune_on_topic(kafka, lambda: Contest(settings, model, rules), _progress))
    else:
        contest = Contest(settings, model, rules)
        try:
            tune_on_file(public, contest, _progress)
        finally:
            contest.close()
    _print(contest, as_json)


def _rules(
    settings: LearnSettings,
    rates: list[float] | None,
    ranks: list[int] | None,
    norms: list[float] | None,
    cohorts: list[int] | None,
    users: int,
    epsilon: float | None,
    public: bool,
    name: str,
) -> TuningRules:
    from agents.learning.parts import optimizer_of
    from agents.tuning.rules import TuningRules
    from models.learning.tuning import candidates_of

    present = optimizer_of(settings).learning_rate
    # Without noise nothing is clipped, and candidates that differ in that alone would be equal.
    clipped = settings.mechanism != "none"
    found = candidates_of(
        rates or [present / 2, present, 2 * present],
        ranks or [settings.rank],
        (norms if clipped else None) or [settings.max_grad_norm],
        cohorts or [settings.cohort_size],
    )
    guarded = not public and guards_learning(load(AdaptSettings), settings)
    return TuningRules(name, tuple(found), users, epsilon, public, guarded)


def _progress(contest: Contest) -> None:
    err.print(f"{len(contest.results)} rungs over, {len(contest.alive)} candidates left")


def _print(contest: Contest, as_json: bool) -> None:
    from agents.tuning.told import settings_lines

    lines = settings_lines(contest)
    if as_json:
        rungs = [
            {"candidate": contest.candidates[number], "rung": result.rung + 1, "loss": score}
            for result in contest.results
            for number, score in result.scores.items()
        ]
        print_json({"tuning": contest.name, "rungs": rungs, "settings": lines})
        return
    table = Table("rate", "rank", "norm", "cohort", "loss by rung", box=None)
    for number, found in enumerate(contest.candidates):
        losses = [f"{r.scores[number]:.4f}" for r in contest.results if number in r.scores]
        values = (found.learning_rate, found.rank, found.max_grad_norm, found.cohort_size)
        table.add_row(*(f"{value:g}" for value in values), "  ".join(losses))
    out.print(table)
    out.print("To take over, with a new HEADWATER_LEARN_ADAPTER, for a promise is kept:")
    for line in lines:
        out.print(f"  {line}", markup=False)
