"""`headwater learn`: what was learned, done again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.settings import LearnSettings
from infra.commands.progress import progress
from infra.commands.shell import AsJson, out, print_json, run
from infra.commands.tune import tune
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load

learn_app = typer.Typer(help="Make versions again, and tune.", no_args_is_help=True)
learn_app.command()(tune)


@learn_app.command()
def replay(
    version: Annotated[str, typer.Option(help="As `headwater models list` shows it.")],
    folder: Annotated[Path | None, typer.Option(help="Keep the adapter in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version again from its examples and its sealed noise; the same bits, or an error.

    Reads the ledger and the topic of examples, on the machine that learned. Nothing is released,
    and nothing is spent.
    """
    # Imported late: torch.
    import torch

    from infra.learning_replay import Replay

    if folder is not None and folder.exists():
        raise SettingsInvalid(f"{folder} is there already.", "Name a folder that is not.")
    settings = load(LearnSettings)
    torch.set_num_threads(settings.threads)
    again = Replay(settings, version)
    try:
        cohorts = run(again.cohorts(load(KafkaSettings)))
        with progress("rounds") as report:
            found = again.run(cohorts, report, folder)
    finally:
        again.close()
    if as_json:
        print_json(found)
        return
    out.print(
        f"{found.model_version}: the same adapter, from {found.examples} examples of "
        f"{found.users} users in {found.rounds} rounds ({found.seconds:g} s)",
        markup=False,
    )
    out.print(f"sha256 {found.artifact_sha256}")
