"""What cannot be processed goes here with the reason, and the flow goes on (law 2)."""

from __future__ import annotations

import logging
import time
from typing import Final

from schemas import codec, headers, ids, limits
from schemas.errors import HeadwaterError
from schemas.events import DeadLetter
from schemas.topics import DEAD_LETTERS
from streams.producer import Outgoing, Producer
from streams.records import Record

# A dead letter must fit its topic: base64 grows the value by a third, the rest is small.
_KEPT_BYTES_MAX: Final = 5 * 1_048_576

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
    """What `bury` publishes; a value that would not fit is left out."""
    kept = len(record.value or b"") <= _KEPT_BYTES_MAX
    reason = error.message if isinstance(error, HeadwaterError) else f"{error}"
    if not kept:
        reason += " (the value is too large to keep; read it at its offset)"
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        agent=agent,
        error=type(error).__name__,
        reason=reason[: limits.REASON_CHARS_MAX],
        at_ms=time.time_ns() // 1_000_000,
        key=record.key,
        value=record.value if kept else None,
        headers=record.headers,
        value_kept=kept,
    )
