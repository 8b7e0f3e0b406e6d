"""`headwater dead-letters`: what could not be processed, and giving it another chance."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import typer

from infra import dead_letters
from infra.commands.shell import AsJson, err, out, print_json, run
from schemas.events import DeadLetter
from streams.records import Record
from streams.settings import KafkaSettings, load

dead_letters_app = typer.Typer(help="Records that no agent could process.", no_args_is_help=True)


@dead_letters_app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="Newest so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, oldest first: id, where from, why."""
    letters, replayed = run(_newest(load(KafkaSettings), limit))
    for record, letter in letters:
        name = dead_letters.letter_id(record)
        if as_json:
            fields = {"id": name, "replayed": name in replayed}
            print_json(fields | msgspec.to_builtins(letter))
        else:
            value = (letter.value or b"").decode(errors="replace")[:80]
            again = " (replayed)" if name in replayed else ""
            out.print(
                f"{name}{again} {letter.topic}/{letter.partition}@{letter.offset} "
                f"{letter.agent} {letter.error}: {letter.reason}\n    {value}",
                markup=False,
            )
    if not letters and not as_json:
        out.print("no dead letters")


@dead_letters_app.command()
def replay(
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="As `list` shows them.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that were not replayed yet.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were replayed before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the original records again, unchanged, where they came from."""
    if bool(letter_ids) == everything:
        raise typer.BadParameter("Name dead letters, or --all.")
    outcomes = dead_letters.replay(load(KafkaSettings), letter_ids or None, again)
    found, failed = run(_told(outcomes, as_json))
    if not found and not as_json:
        out.print("nothing to replay")
    if failed:
        raise typer.Exit(1)


async def _newest(
    kafka: KafkaSettings, limit: int
) -> tuple[deque[tuple[Record, DeadLetter]], set[str]]:
    """The newest letters, and the ids of all that were replayed."""
    letters: deque[tuple[Record, DeadLetter]] = deque(maxlen=limit)
    replayed = set()
    async for record, letter in dead_letters.read(kafka):
        if letter is not None:
            letters.append((record, letter))
        elif (name := dead_letters.marked(record)) is not None:
            replayed.add(name)
    return letters, replayed


async def _told(outcomes: AsyncIterator[dead_letters.Outcome], as_json: bool) -> tuple[int, int]:
    """Say what became of each letter; gives how many there were, and how many were not replayed."""
    found = failed = 0
    async for outcome in outcomes:
        found += 1
        failed += not outcome.replayed
        if as_json:
            print_json(outcome)
        elif outcome.replayed:
            out.print(f"replayed {outcome.id} to {outcome.topic}", markup=False)
        else:
            err.print(f"not replayed {outcome.id}: {outcome.reason}", markup=False)
    return found, failed
