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
    from infra.evaluation.documents import Point

_NAMES = ("passages", "seconds", "to_come", "old", "general", "packages", "chat")


def documents(
    file: Annotated[Path, typer.Argument(help="SQuAD-format JSON, such as XQuAD's.")],
    limit: Annotated[int | None, typer.Option(min=4, help="Articles of it.")] = None,
    points: Annotated[int, typer.Option(min=1, help="Measured so often on the way.")] = 4,
    rate: Annotated[float | None, typer.Option(help="Learning rate, not the default.")] = None,
    model: Annotated[str, typer.Option(help="As HEADWATER_GENERATE_MODEL.")] = "smollm2",
    keep: Annotated[Path | None, typer.Option(help="Empty folder for what was studied.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw perplexities by passages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Study articles in their order; perplexity on those to come, on old ones and in general.

    Fails where articles to come do not get easier, or general perplexity rises by over 2 %.
    """
    from agents.study_settings import StudySettings
    from agents.studying import curriculum
    from infra.evaluation.documents import Trial, articles_of, verdict
    from infra.evaluation.squad import read_squad
    from models.cache import user_cache_dir
    from models.engine.load import load as load_model
    from streams.settings import load

    changed = {} if rate is None else {"learning_rate": rate}
    settings = load(StudySettings, **changed)
    articles = articles_of(read_squad(file).documents)[:limit]
    found = [document for article in articles for document in article]
    check_writable(plot)
    loaded = load_model(model, user_cache_dir(), "auto", "auto")
    measured: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder, progress("articles"):
        trial = Trial(loaded, found, curriculum(settings), keep or Path(folder))
        trial.run(points, lambda point: _tell(measured, point, as_json))
        trial.study.close()
    result = verdict(measured)
    if plot is not None:
        from infra.evaluation.documents_plot import draw

        draw(measured, plot)
    if as_json:
        print_json(result)
    else:
        _print(measured)
        for name, value in result.items():
            out.print(f"{name}: {value}{'' if isinstance(value, bool) else ' %'}", markup=False)
    if not (result["to_come_falls"] and result["general_rises_2_percent_at_most"]):
        raise typer.Exit(1)


def _tell(measured: list[Point], point: Point, as_json: bool) -> None:
    measured.append(point)
    if as_json:
        print_json(asdict(point))


def _print(points: list[Point]) -> None:
    table = Table(*_NAMES, box=None)
    for point in points:
        table.add_row(*(f"{getattr(point, name):g}" for name in _NAMES))
    out.print(table)
