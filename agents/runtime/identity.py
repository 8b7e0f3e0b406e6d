"""Which id an event has: its own, its record's key, or its place; contradictions are refused."""

from __future__ import annotations

from schemas import limits
from schemas.errors import EventInvalid
from schemas.ids import record_id
from streams.records import Record


def event_id(record: Record, named: str | None) -> str:
    """The id for an event that names `named` in a record that may have a key.

    Raises EventInvalid where both exist and differ (a tombstone for the key would miss the event),
    or where the key cannot be an id.
    """
    key = record.key_text or None  # Some clients send an empty key for none.
    if named is not None and key is not None and named != key:
        raise EventInvalid(
            f"The key is {key[:80]!r} but the event says {named[:80]!r}.",
            "Use the same id in both, or leave one out.",
        )
    found = named or key or record_id(record.topic, record.partition, record.offset)
    if len(found) > limits.ID_CHARS_MAX:
        raise EventInvalid(
            f"The id has {len(found)} characters; {limits.ID_CHARS_MAX} are allowed.",
            "Use a shorter key.",
        )
    return found
