"""What cannot be processed goes here with the reason, and the flow goes on (law 2)."""

from __future__ import annotations

import logging

from schemas import codec, headers, ids, limits
from schemas.clock import now_ms
from schemas.errors import HeadwaterError
from schemas.events import DeadLetter
from schemas.topics import DEAD_LETTERS
from streams.producer import Outgoing, Producer
from streams.records import Record

log = logging.getLogger("headwater.dead_letters")


async def bury(producer: Producer, record: Record, agent: str, error: Exception) -> None:
    """Publish a record as a dead letter; returns once the broker has it."""
    letter = make_letter(record, agent, error)
    log.warning("dead letter %s/%d@%d: %s", record.topic, record.partition, record.offset, error)
    event_id = ids.record_id(record.topic, record.partition, record.offset)
    trace = headers.child_traceparent(headers.header(record.headers, "traceparent"))
    await producer.send(
        Outgoing(
            DEAD_LETTERS,
            record.key,
            codec.encode(letter),
            headers.make_headers(DEAD_LETTERS, event_id, f"/agents/{agent}", trace),
        )
    )


def make_letter(record: Record, agent: str, error: Exception) -> DeadLetter:
    """What `bury` publishes; of a record that would not fit value and headers are left out."""
    kept = _fits(record)
    reason = error.message if isinstance(error, HeadwaterError) else f"{error}"
    if not kept:
        reason += " (the record is too large to keep; read it at its offset)"
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        agent=agent,
        error=type(error).__name__,
        reason=reason[: limits.REASON_CHARS_MAX],
        at_ms=now_ms(),
        key=record.key[: limits.FRAMING_BYTES_MAX] if record.key else record.key,
        value=record.value if kept else None,
        headers=record.headers if kept else [],
        value_kept=kept,
    )


def _fits(record: Record) -> bool:
    """Whether a dead letter of this record fits its topic: base64 grows bytes by a third."""
    framing = [record.key or b"", *(value or b"" for _, value in record.headers)]
    return (
        len(record.value or b"") <= limits.DEAD_LETTER_VALUE_BYTES_MAX
        and sum(map(len, framing)) <= limits.FRAMING_BYTES_MAX
        and len(record.headers) <= limits.HEADERS_MAX
        and all(len(name) <= limits.NAME_CHARS_MAX for name, _ in record.headers)
    )
