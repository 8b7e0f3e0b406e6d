"""Which id an event has."""

from __future__ import annotations

import pytest

from agents.runtime.identity import event_id
from schemas import limits
from schemas.errors import EventInvalid
from streams.records import Record


def record(key: bytes | None) -> Record:
    return Record("headwater.prompts", 2, 17, key, b"{}", [], 0)


@pytest.mark.parametrize(
    ("key", "named", "found"),
    [
        (b"a", "a", "a"),
        (b"a", None, "a"),
        (None, "a", "a"),
        (None, None, "headwater.prompts-2-17"),
        (b"", None, "headwater.prompts-2-17"),
        (b"\xff", None, "\\xff"),
        (b"i" * limits.ID_CHARS_MAX, None, "i" * limits.ID_CHARS_MAX),
    ],
)
def test_an_id_comes_from_the_event_its_key_or_its_place(
    key: bytes | None, named: str | None, found: str
) -> None:
    assert event_id(record(key), named) == found


def test_a_key_that_contradicts_the_event_is_refused() -> None:
    with pytest.raises(EventInvalid, match="'a' but the event says 'b'"):
        event_id(record(b"a"), "b")


def test_a_key_that_is_too_long_for_an_id_is_refused() -> None:
    with pytest.raises(EventInvalid, match="257 characters"):
        event_id(record(b"i" * 257), None)
    with pytest.raises(EventInvalid, match="1028 characters"):
        event_id(record(b"\xff" * 257), None)
