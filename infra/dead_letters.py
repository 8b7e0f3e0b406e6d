"""Reading dead letters, and publishing their originals again: each once, unless asked again.

The mark of a letter that was replayed stands beside it in `dead-letters`: a record without a value
that names the letter in its header `replayed`. One transaction writes the original and the mark,
and whoever opens its writer fences earlier ones. So neither a crash nor a second operator replays
a letter twice, and the mark is kept for at least as long as its letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from schemas import codec, headers
from schemas.errors import EventInvalid, Fenced, NotAuthorised, RecordTooLarge, TopicMissing
from schemas.events import DeadLetter
from schemas.topics import BY_NAME, DEAD_LETTERS
from streams.admin import check_connection
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

REPLAYED_HEADER: Final = "replayed"
_WRITER: Final = "dead-letters-replay"
# What is wrong with one letter; the others can still be replayed.
_ITS_OWN_FAULT: Final = (EventInvalid, NotAuthorised, RecordTooLarge, TopicMissing)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a letter: replayed, or not for a reason. A topic of "" is not known."""

    id: str
    topic: str
    replayed: bool
    reason: str = ""


async def read(kafka: KafkaSettings) -> AsyncGenerator[tuple[Record, DeadLetter | None], None]:
    """All that `dead-letters` holds now; None for what is no letter, such as a mark."""
    async with Subscription(kafka, DEAD_LETTERS, since="earliest") as subscription:
        async for record in subscription.present():
            try:
                yield record, codec.decode(DEAD_LETTERS, record.value or b"")
            except EventInvalid:
                yield record, None


def letter_id(record: Record) -> str:
    """The id of a letter: its place."""
    return f"{record.partition}@{record.offset}"


def marked(record: Record) -> str | None:
    """The id of the letter that this record marks as replayed, if it is such a mark."""
    return headers.header(record.headers, REPLAYED_HEADER) if record.value is None else None


async def replay(
    kafka: KafkaSettings, wanted: Iterable[str] | None = None, again: bool = False
) -> AsyncIterator[Outcome]:
    """Publish the originals of the wanted letters, or of all; yields what became of each.

    Of all, those replayed before are passed over in silence, unless `again`. Raises Fenced when
    another replay begins meanwhile, and as `explain` when the broker fails.
    """
    # The writer would be patient with a broker that is not there.
    await asyncio.to_thread(check_connection, kafka)
    writer = FencedWriter(kafka, _WRITER)
    # Opened first: what an earlier replay writes from here on is refused, so no mark is missed.
    await writer.open()
    present, done = await _survey(kafka)
    chosen = set(wanted) if wanted is not None else present - (set() if again else done)
    for missing in sorted(chosen - present):
        yield Outcome(missing, "", False, "there is no such dead letter")
    # Only those: an original that fails again comes back as a letter, for ever.
    left = chosen & present
    async with aclosing(read(kafka)) as records:
        while left:
            record, letter = await anext(records)
            if letter is not None and letter_id(record) in left:
                left.remove(letter_id(record))
                yield await _outcome(kafka, writer, record, letter, set() if again else done)


async def _survey(kafka: KafkaSettings) -> tuple[set[str], set[str]]:
    """The ids of all letters, and of those replayed before."""
    present, done = set(), set()
    async for record, letter in read(kafka):
        if letter is not None:
            present.add(letter_id(record))
        elif (replayed := marked(record)) is not None:
            done.add(replayed)
    return present, done


async def _outcome(
    kafka: KafkaSettings, writer: FencedWriter, record: Record, letter: DeadLetter, done: set[str]
) -> Outcome:
    name = letter_id(record)
    if name in done:
        return Outcome(name, letter.topic, False, "it was replayed before; --again does it again")
    try:
        await writer.write([original(kafka, letter), _mark(record)])
    except _ITS_OWN_FAULT as error:
        return Outcome(name, letter.topic, False, str(error))
    except Fenced as error:
        raise Fenced(
            "Another replay has begun; it goes on where this one was.", "See what it says."
        ) from error
    return Outcome(name, letter.topic, True)


def original(kafka: KafkaSettings, letter: DeadLetter) -> Outgoing:
    """The record as it was; raises EventInvalid where that cannot be."""
    name = letter.topic.removeprefix(kafka.topic_prefix)
    if not letter.topic.startswith(kafka.topic_prefix) or name not in BY_NAME:
        raise EventInvalid(
            f"The letter came from {letter.topic}, which is none of our topics.",
            "Set HEADWATER_KAFKA_TOPIC_PREFIX to what it was.",
        )
    if not letter.value_kept:
        raise EventInvalid(
            f"The value of {letter.topic}/{letter.partition}@{letter.offset} was not kept.",
            "Read it there and publish it in smaller parts.",
        )
    made: list[tuple[str, Any]] = [(key, value or b"") for key, value in letter.headers]
    return Outgoing(BY_NAME[name], letter.key, letter.value, made)


def _mark(record: Record) -> Outgoing:
    name = letter_id(record)
    made = headers.make_headers(DEAD_LETTERS, f"replayed-{name}", "/cli")
    made.append((REPLAYED_HEADER, name.encode()))
    return Outgoing(DEAD_LETTERS, record.key, None, made, record.partition)
