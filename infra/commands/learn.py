"""`headwater learn`: pausing the learning of an adapter, and going on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from agents.controls import control_record, read_control
from agents.settings import LearnSettings
from infra.commands.shell import AsJson, out, print_json, run
from schemas import ids
from schemas.clock import now_ms
from schemas.events import Control
from schemas.topics import CONTROLS
from streams.producer import Producer
from streams.settings import KafkaSettings, load
from streams.subscription import Subscription

SOURCE = "/cli/learn"

learn_app = typer.Typer(help="Pause learning, or let it go on.", no_args_is_help=True)

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


async def _publish(adapter: str, learning: Literal["on", "paused"], reason: str) -> None:
    producer = Producer(load(KafkaSettings))
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
    return given or load(LearnSettings).adapter
