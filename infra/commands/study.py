"""`headwater study`: what the agent that studies documents has done, and beginning again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from agents.studying.settings import StudySettings
from infra.commands.shell import AsJson, out, print_json
from schemas.errors import DataInvalid
from streams.settings import load

study_app = typer.Typer(help="What is learned from documents.", no_args_is_help=True)


@study_app.command()
def show(as_json: AsJson = False) -> None:
    """Say how far the study in HEADWATER_STUDY_FOLDER has come."""
    # Imported late: torch takes a second.
    from models.studying.notes import read_notes, study_file

    folder = load(StudySettings).study_folder
    found = read_notes(study_file(folder))
    if found is None:
        raise _no_study(folder)
    notes, _ = found
    state: dict[str, Any] = {
        "lessons": notes.lessons,
        "passages_studied": notes.studied,
        "passages_waiting": len(notes.waiting),
        "passages_replayed_from": len(notes.reservoir.texts),
        "passages_for_the_gate": len(notes.fresh),
        "versions_judged": notes.version_number,
        "rebuilding": not notes.rebuilt,
        "offsets": notes.offsets,
        "began_with": notes.began_with,
    }
    if as_json:
        print_json(state)
        return
    for name, value in state.items():
        out.print(f"{name}: {value}", markup=False)


@study_app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Forget all that was studied; the agent then studies the passages that there are still.

    For deleted documents: weights keep what they learned of them. Stop the agent first. Until the
    rebuilt version is live the old one serves; `headwater models rollback --adapter documents --to
    base` takes it away at once.
    """
    from models.studying.notes import begin_again, study_file

    settings = load(StudySettings)
    if not study_file(settings.study_folder).exists():
        raise _no_study(settings.study_folder)
    notes = begin_again(settings.study_folder)
    if as_json:
        print_json({"folder": str(settings.study_folder), "versions_judged": notes.version_number})
        return
    out.print(
        f"{settings.study_folder} begins again; its next version is {settings.adapter}-"
        f"{notes.version_number + 1}. Start `headwater agent study`.",
        markup=False,
    )


def _no_study(folder: Path) -> DataInvalid:
    return DataInvalid(f"There is no study in {folder}.", "Run `headwater agent study`.")
