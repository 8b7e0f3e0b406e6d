"""`headwater models`: the versions of adapters, which one serves, and changing that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from agents.learning.model_change import made_live, publish
from agents.settings import LearnSettings
from infra.commands.shell import AsJson, out, print_json, run
from schemas.errors import ModelUnavailable
from schemas.events import ModelUpdate
from streams.settings import KafkaSettings, load

if TYPE_CHECKING:
    from infra.model_history import ModelHistory

SOURCE = "/cli/models"

models_app = typer.Typer(help="Versions of adapters, and which one serves.", no_args_is_help=True)

Adapter = Annotated[str | None, typer.Option(help="Which adapter; default: the one that learns.")]
Name = Annotated[str, typer.Argument(help="As `headwater models list` shows it, or base.")]
Why = Annotated[str, typer.Option("--reason", help="Kept with the event.")]


@models_app.command("list")
def list_versions(as_json: AsJson = False) -> None:
    """Show all versions that are known, oldest first."""
    history = _history()
    if as_json:
        for version in history.versions:
            print_json(version)
        return
    table = Table("version", "serves", "made", "origin", "parent", "loss", "ε", box=None)
    for version in history.versions:
        update = version.update
        state = update.adapter if version.live else "" if version.released else "not released"
        table.add_row(
            update.model_version,
            state,
            _time(update.published_ms),
            update.origin,
            update.parent_version or "",
            _figure(update.evaluation.get("gate_loss")),
            _figure(update.privacy.epsilon_total if update.privacy else None, 2),
        )
    out.print(table if history.versions else "no versions; the base model serves")


@models_app.command()
def show(version: Name, adapter: Adapter = None, as_json: AsJson = False) -> None:
    """Show what is known of a version: parent, cohorts, privacy spent, evaluation."""
    _show(_history().named(version, _adapter(adapter)), as_json)


@models_app.command()
def promote(
    version: Name,
    adapter: Adapter = None,
    reason: Why = "promoted by hand",
    as_json: AsJson = False,
) -> None:
    """Make a version live, also one that the gate did not release."""
    name = _adapter(adapter)
    _make_live(_history(), version, name, reason, as_json, back=version == "base")


@models_app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="A version; default: the parent.")] = None,
    adapter: Adapter = None,
    reason: Why = "rolled back by hand",
    as_json: AsJson = False,
) -> None:
    """Make an earlier version live again; learning goes on, and has to beat that one."""
    name, history = _adapter(adapter), _history()
    live = history.live(name)
    target = to or history.named(live, name).parent_version
    if target is None or target == live:
        raise ModelUnavailable(
            f"{live} is live, and nothing is known to be before it.", "Name one with --to."
        )
    _make_live(history, target, name, reason, as_json, back=True)


@models_app.command()
def diff(first: Name, second: Name, adapter: Adapter = None, as_json: AsJson = False) -> None:
    """Compare two versions: weights by module, evaluation, privacy."""
    # Imported late: torch takes a second.
    from infra.model_weights import distances

    name, history = _adapter(adapter), _history()
    updates = history.named(first, name), history.named(second, name)
    found = distances(*updates, load(LearnSettings).cache_dir)
    if as_json:
        print_json({"modules": found, "versions": updates})
        return
    table = Table("module", first, second, "difference", box=None)
    for distance in found:
        norms = (distance.first, distance.second, distance.difference)
        table.add_row(distance.module, *(f"{norm:.4f}" for norm in norms))
    out.print(table)
    names = sorted({figure for update in updates for figure in update.evaluation})
    for figure in names:
        values = [_figure(update.evaluation.get(figure)) for update in updates]
        out.print(f"{figure}: {' → '.join(value or '?' for value in values)}", markup=False)
    spent = [_figure(u.privacy.epsilon_total if u.privacy else None) or "?" for u in updates]
    out.print(f"epsilon: {' → '.join(spent)}", markup=False)


def _make_live(
    history: ModelHistory, version: str, adapter: str, reason: str, as_json: bool, *, back: bool
) -> None:
    update = made_live(history.named(version, adapter), adapter, reason, back=back)
    delivered = run(publish(load(KafkaSettings), update, SOURCE))
    if as_json:
        print_json(update)
    else:
        out.print(f"{adapter} serves {version} from {delivered.offset} on", markup=False)


def _show(update: ModelUpdate, as_json: bool) -> None:
    if as_json:
        print_json(update)
        return
    fields: dict[str, Any] = msgspec.to_builtins(update)
    for name, value in fields.items():
        if isinstance(value, dict):
            out.print(f"{name}:")
            for inner, figure in value.items():
                out.print(f"  {inner}: {figure}", markup=False)
        else:
            shown = _time(value) if name.endswith("_ms") else value
            out.print(f"{name}: {shown}", markup=False)


def _history() -> ModelHistory:
    # Imported late, as all that reads the ledger: it needs numpy and torch.
    from infra.model_history import read_history

    return run(read_history(load(KafkaSettings), load(LearnSettings)))


def _adapter(given: str | None) -> str:
    return given or load(LearnSettings).adapter


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _figure(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
