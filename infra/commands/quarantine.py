"""`headwater quarantine`: feedback that the guard set aside, for a person to decide on."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from infra import quarantine
from infra.commands.shell import AsJson, err, out, print_json, run
from schemas.events import Verdict
from streams.settings import KafkaSettings, load

quarantine_app = typer.Typer(help="Feedback that the guard set aside.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="As `list` shows them.")]
Everything = Annotated[bool, typer.Option("--all", help="All that is in quarantine.")]


@quarantine_app.command("list")
def list_quarantined(as_json: AsJson = False) -> None:
    """Show what is in quarantine: id, who said it, what, and why it is there."""
    found = run(quarantine.waiting(load(KafkaSettings)))
    for verdict in found.values():
        if as_json:
            print_json(verdict)
        else:
            out.print(_line(verdict), markup=False)
    if not found and not as_json:
        out.print("nothing is in quarantine")


@quarantine_app.command()
def release(ids: Ids = None, everything: Everything = False, as_json: AsJson = False) -> None:
    """Let it be learned from after all."""
    _tell(run(quarantine.release(load(KafkaSettings), _chosen(ids, everything))), as_json)


@quarantine_app.command()
def drop(ids: Ids = None, everything: Everything = False, as_json: AsJson = False) -> None:
    """Leave it out for good."""
    _tell(run(quarantine.drop(load(KafkaSettings), _chosen(ids, everything))), as_json)


def _chosen(ids: list[str] | None, everything: bool) -> list[str] | None:
    if bool(ids) == everything:
        raise typer.BadParameter("Name what is in quarantine, or --all.")
    return ids or None


def _line(verdict: Verdict) -> str:
    outcome = verdict.outcome
    said = ""
    if outcome is not None:
        said = f" {outcome.user} on {outcome.prompt_id}: reward {outcome.reward}"
        if outcome.example is not None and outcome.example.correction is not None:
            said += f", correction {outcome.example.correction[:80]!r}"
    return f"{verdict.outcome_id}{said}\n    {'; '.join(verdict.reasons)}"


def _tell(found: list[quarantine.Done], as_json: bool) -> None:
    for one in found:
        if as_json:
            print_json(msgspec.to_builtins(one))
        elif one.done:
            out.print(f"done {one.outcome_id}", markup=False)
        else:
            err.print(f"not done {one.outcome_id}: {one.reason}", markup=False)
    if not found and not as_json:
        out.print("nothing is in quarantine")
    if any(not one.done for one in found):
        raise typer.Exit(1)
