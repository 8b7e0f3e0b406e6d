"""`headwater topics` and `headwater contracts`: what the river is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from infra.commands.shell import AsJson, err, out, print_json, topic_named
from schemas import contracts
from schemas.topics import TOPICS
from streams.admin import create_topics, describe_topics
from streams.settings import KafkaSettings, load

contracts_app = typer.Typer(
    help="The exported JSON Schemas and the AsyncAPI document.", no_args_is_help=True
)

# The width of the table beside its topics' names.
_OTHER_COLUMNS_CHARS = 44

Against = Annotated[Path, typer.Option(help="Folder of the older contracts.")]


def topics(
    create: Annotated[bool, typer.Option("--create", help="Create those missing first.")] = False,
    replication: Annotated[
        int, typer.Option(help="Copies of each new topic; -1: the broker's default.")
    ] = -1,
    as_json: AsJson = False,
) -> None:
    """List the river's topics as the broker has them."""
    kafka = load(KafkaSettings)
    created = create_topics(kafka, replication) if create else []
    states = describe_topics(kafka)
    if as_json:
        for state in states:
            print_json(state)
    else:
        table = Table("topic", "partitions", "records", "kept", box=None)
        # A narrow terminal may break the lines; a name cut short would be of no use.
        table.columns[0].min_width = max(len(state.name) for state in states)
        for topic, state in zip(TOPICS, states, strict=True):
            hours = (topic.retention_ms or 0) // 3_600_000
            kept = (
                "compacted"
                if topic.compacted
                else f"{hours} h"
                if hours < 24
                else f"{hours // 24} days"
            )
            partitions = str(state.partitions) if state.exists else "missing"
            table.add_row(state.name, partitions, f"{state.records:,}", kept)
        out.print(table, width=max(out.width, table.columns[0].min_width + _OTHER_COLUMNS_CHARS))
        if created:
            out.print(f"created {len(created)} topics")
    if any(not state.exists for state in states):
        err.print("Some are missing: `headwater topics --create` makes them.")
        raise typer.Exit(1)


@contracts_app.command()
def check(against: Against = contracts.FOLDER, as_json: AsJson = False) -> None:
    """Fail on a change that breaks an older reader or writer, or that was not exported."""
    found = contracts.breaks(against)
    stale = contracts.unexported(against)
    if as_json:
        print_json({"breaks": found, "unexported": stale})
    else:
        for item in found:
            out.print(str(item), style="red", markup=False)
        for name in stale:
            out.print(f"{name}: differs from the structs", markup=False)
        if not found and stale:
            out.print("Compatible; write the files anew with `headwater contracts export`.")
        if not found and not stale:
            out.print(f"{len(TOPICS)} contracts hold.")
    if found or stale:
        raise typer.Exit(1)


@contracts_app.command()
def export(
    folder: Against = contracts.FOLDER,
    force: Annotated[bool, typer.Option(help="Even where it breaks older users.")] = False,
) -> None:
    """Write the contracts of the structs as they are."""
    if not force and any(folder.glob("*.schema.json")) and (found := contracts.breaks(folder)):
        for item in found:
            err.print(str(item), markup=False)
        err.print("Not written. Mend the structs, or break users knowingly with --force.")
        raise typer.Exit(1)
    for path in contracts.export(folder):
        out.print(f"wrote {path}", markup=False)


@contracts_app.command()
def show(topic: Annotated[str, typer.Argument(help="A topic, or asyncapi.")]) -> None:
    """Print the JSON Schema of one topic's values, or the AsyncAPI document."""
    print_json(
        contracts.asyncapi() if topic == "asyncapi" else contracts.topic_schema(topic_named(topic))
    )
