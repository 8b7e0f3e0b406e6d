"""`headwater dead-letters`: what could not be processed, and giving it another chance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import typer

from infra.commands.shell import AsJson, out, print_json, run
from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import DeadLetter
from schemas.topics import BY_NAME, DEAD_LETTERS
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings, load
from streams.subscription import Subscription

dead_letters_app = typer.Typer(help="Records that no agent could process.", no_args_is_help=True)

# The bookmark up to which `replay --all` has replayed.
_REPLAYED = "dead-letters-replay"


@dead_letters_app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="Newest so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, oldest first: id, where from, why."""
    letters = run(_all(load(KafkaSettings)))[-limit:]
    for record, letter in letters:
        if as_json:
            print_json({"id": _id(record), **msgspec.to_builtins(letter)})
        else:
            value = (letter.value or b"").decode(errors="replace")[:80]
            out.print(
                f"{_id(record)} {letter.topic}/{letter.partition}@{letter.offset} "
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
        bool, typer.Option("--all", help="All since the last `replay --all`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the original records again, unchanged, where they came from."""
    if bool(letter_ids) == everything:
        raise typer.BadParameter("Name dead letters, or --all.")
    replayed = run(_replay(load(KafkaSettings), set(letter_ids or [])))
    for letter_id, letter in replayed:
        if as_json:
            print_json({"id": letter_id, "topic": letter.topic})
        else:
            out.print(f"replayed {letter_id} to {letter.topic}", markup=False)
    if not replayed and not as_json:
        out.print("nothing to replay")


async def _all(kafka: KafkaSettings) -> list[tuple[Record, DeadLetter]]:
    subscription = Subscription(kafka, DEAD_LETTERS, since="earliest")
    async with subscription:
        return [item async for item in _letters(subscription)]


async def _letters(subscription: Subscription) -> AsyncIterator[tuple[Record, DeadLetter]]:
    async for record in subscription.present():
        try:
            yield record, codec.decode(DEAD_LETTERS, record.value or b"")
        except EventInvalid:
            continue  # Somebody wrote here by hand; there is no original to show.


async def _replay(kafka: KafkaSettings, wanted: set[str]) -> list[tuple[str, DeadLetter]]:
    """Replay the wanted letters; an empty set means all since the last time."""
    name = None if wanted else _REPLAYED
    subscription = Subscription(kafka, DEAD_LETTERS, since="earliest", name=name)
    producer = Producer(kafka)
    replayed = []
    try:
        async with subscription:
            async for record, letter in _letters(subscription):
                # Without its value a record would be a tombstone: replayed only by mistake.
                if letter.value_kept if not wanted else _id(record) in wanted:
                    await producer.send(_original(kafka, letter))
                    replayed.append((_id(record), letter))
    finally:
        await producer.close()
    if missing := wanted - {letter_id for letter_id, _ in replayed}:
        raise EventInvalid(
            f"There is no dead letter {', '.join(sorted(missing))}.",
            "`headwater dead-letters list` shows their ids.",
        )
    return replayed


def _original(kafka: KafkaSettings, letter: DeadLetter) -> Outgoing:
    name = letter.topic.removeprefix(kafka.topic_prefix)
    if name not in BY_NAME:
        raise EventInvalid(
            f"The letter came from {letter.topic}, which is none of our topics.",
            "Set HEADWATER_KAFKA_TOPIC_PREFIX to what it was.",
        )
    if not letter.value_kept:
        raise EventInvalid(
            f"The value of {letter.topic}/{letter.partition}@{letter.offset} was not kept.",
            "Read it there and publish it in smaller parts.",
        )
    headers: list[tuple[str, Any]] = [(key, value or b"") for key, value in letter.headers]
    return Outgoing(BY_NAME[name], letter.key, letter.value, headers)


def _id(record: Record) -> str:
    return f"{record.partition}@{record.offset}"
