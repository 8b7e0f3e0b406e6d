"""`headwater learn`: pausing the learning of an adapter, going on; versions made again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from agents.learning.controls import control_record, read_control
from agents.settings import LearnedSettings, LearnSettings
from infra.commands.progress import progress
from infra.commands.shell import AsJson, out, print_json, run
from infra.commands.tune import tune
from schemas import ids
from schemas.clock import now_ms
from schemas.errors import SettingsInvalid
from schemas.events import Control
from schemas.topics import CONTROLS
from streams.admin import check_connection
from streams.producer import Producer
from streams.settings import KafkaSettings, load
from streams.subscription import Subscription

SOURCE = "/cli/learn"

learn_app = typer.Typer(
    help="Pause learning, let it go on, make versions again, tune.", no_args_is_help=True
)
learn_app.command()(tune)

Adapter = Annotated[str | None, typer.Option(help="Which adapter; default: the one that learns.")]
Why = Annotated[str, typer.Option("--reason", help="Kept with the event.")]


@learn_app.command()
def pause(adapter: Adapter = None, reason: Why = "paused by hand") -> None:
    """Take no more examples; a round that has begun ends, and serving goes on."""
    run(_publish(_named(adapter), "paused", reason))


@learn_app.command()
def resume(adapter: Adapter = None, reason: Why = "resumed by hand") -> None:
    """Go on where learning was paused: no example is lost."""
    run(_publish(_named(adapter), "on", reason))


@learn_app.command()
def status(adapter: Adapter = None, as_json: AsJson = False) -> None:
    """Say whether an adapter learns, since when and why."""
    control = run(_newest(_named(adapter)))
    if as_json:
        print_json(control)
        return
    said = "paused" if control.learning == "paused" else "not paused"
    out.print(f"{control.adapter} is {said}: {control.reason or 'as usual'}", markup=False)


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
    from infra.learning_replay import Replay

    if folder is not None and folder.exists():
        raise SettingsInvalid(f"{folder} is there already.", "Name a folder that is not.")
    again = Replay(load(LearnSettings), version)
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


async def _publish(adapter: str, learning: Literal["on", "paused"], reason: str) -> None:
    kafka = load(KafkaSettings)
    # A producer waits longer for a broker than anybody at a terminal.
    await asyncio.to_thread(check_connection, kafka)
    producer = Producer(kafka)
    try:
        await producer.send(control_record(adapter, learning, reason, ids.new_id("event"), SOURCE))
    finally:
        await producer.close()
    out.print(f"{adapter}: learning is {learning}", markup=False)


async def _newest(adapter: str) -> Control:
    async with Subscription(load(KafkaSettings), CONTROLS, since="earliest") as subscription:
        records = [record async for record in subscription.present()]
    found = [control for record in records if (control := read_control(record))]
    newest = [control for control in found if control.adapter == adapter]
    return newest[-1] if newest else Control(adapter, "on", now_ms())


def _named(given: str | None) -> str:
    return given or load(LearnedSettings).adapter
