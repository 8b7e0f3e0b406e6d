"""`headwater eval documents`: what studying a stream of articles does to perplexity."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from infra.commands.learning import check_writable
from infra.commands.progress import progress
from infra.commands.shell import AsJson, out, print_json

if TYPE_CHECKING:
    from infra.evaluation.documents import Point, Trial
    from infra.evaluation.two_adapters import Arm
    from models.engine.load import Loaded

_NAMES = ("passages", "seconds", "to_come", "old", "general", "packages", "chat")


def documents(
    file: Annotated[Path, typer.Argument(help="SQuAD-format JSON, such as XQuAD's.")],
    limit: Annotated[int | None, typer.Option(min=4, help="Articles of it.")] = None,
    points: Annotated[int, typer.Option(min=1, help="Measured so often on the way.")] = 4,
    rate: Annotated[float | None, typer.Option(help="Learning rate, not the default.")] = None,
    model: Annotated[str, typer.Option(help="As HEADWATER_GENERATE_MODEL.")] = "smollm2",
    keep: Annotated[Path | None, typer.Option(help="Empty folder for what was studied.")] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="E2E folder: what both kinds of learning do together.")
    ] = None,
    corrections: Annotated[int, typer.Option(min=16, help="Of it, to learn from.")] = 192,
    plot: Annotated[Path | None, typer.Option(help="Draw perplexities by passages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Study articles in their order; perplexity on those to come, on old ones and in general.

    Fails where articles to come do not get easier, or general perplexity rises by over 2 %.
    """
    from agents.studying.opening import curriculum
    from agents.studying.settings import StudySettings
    from infra.evaluation.documents import Trial, articles_of, verdict
    from infra.evaluation.squad import read_squad
    from infra.evaluation.tracked import track_evaluation
    from models.cache import user_cache_dir
    from models.engine.load import load as load_model
    from streams.settings import load

    settings = load(StudySettings, **({} if rate is None else {"learning_rate": rate}))
    articles = articles_of(read_squad(file).documents)[:limit]
    stream = [document for article in articles for document in article]
    check_writable(plot)
    loaded = load_model(model, user_cache_dir(), "auto", "auto")
    measured: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder, progress("articles"):
        trial = Trial(loaded, stream, curriculum(settings), keep or Path(folder))
        trial.run(points, lambda point: _tell(measured, point, as_json))
        trial.study.close()
    result = verdict(measured)
    _print(measured, result, as_json)
    track_evaluation(
        "documents",
        {"first": asdict(measured[0]), "last": asdict(measured[-1]), "verdict": result},
        {"file": file.name, "model": model, "articles": len(articles)},
        [asdict(point) for point in measured],
    )
    if plot is not None:
        from infra.evaluation.documents_plot import draw

        draw(measured, plot)
    if feedback is not None:
        arms = _beside(trial, loaded, feedback, corrections, as_json)
        track_evaluation(
            "documents-feedback",
            {arm.name: asdict(arm) for arm in arms},
            {"file": file.name, "model": model, "corrections": corrections},
        )
    if not (result["to_come_falls"] and result["general_rises_2_percent_at_most"]):
        raise typer.Exit(1)


def _tell(measured: list[Point], point: Point, as_json: bool) -> None:
    measured.append(point)
    if as_json:
        print_json(asdict(point))


def _print(points: list[Point], result: dict[str, float | bool], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    table = Table(*_NAMES, box=None)
    for point in points:
        table.add_row(*(f"{getattr(point, name):g}" for name in _NAMES))
    out.print(table)
    for name, value in result.items():
        out.print(f"{name}: {value}{'' if isinstance(value, bool) else ' %'}", markup=False)


def _beside(
    trial: Trial, loaded: Loaded, feedback: Path, corrections: int, as_json: bool
) -> list[Arm]:
    """What the adapter of the documents and one of feedback do to each other."""
    from infra.evaluation.two_adapters import compare_arms, held_out_answers, learned_from_feedback

    with progress("feedback"):
        taught = learned_from_feedback(loaded, feedback, corrections)
    answers = held_out_answers(loaded, feedback)
    arms = []
    for arm in compare_arms(loaded, trial.studied, taught, trial.probes.to_come, answers):
        arms.append(arm)
        if as_json:
            print_json(asdict(arm))
            continue
        out.print(
            f"{arm.name}: articles to come {arm.documents:.4f}, feedback {arm.feedback:.4f}",
            markup=False,
        )
    return arms
