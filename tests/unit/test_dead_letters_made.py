"""What a dead letter keeps of its record, and what may be replayed."""

from __future__ import annotations

import dataclasses

import pytest

from agents.runtime.dead_letters import make_letter
from infra.dead_letters import original
from schemas import codec, limits
from schemas.errors import EventInvalid
from schemas.topics import DEAD_LETTERS, DOCUMENTS
from streams.records import Record
from streams.settings import KafkaSettings

KAFKA = KafkaSettings()


def record(value: bytes | None) -> Record:
    return Record(KAFKA.topic_name(DOCUMENTS), 1, 7, b"doc", value, [], 0)


@pytest.mark.parametrize("value", [b"{}", b"", None])
def test_the_original_is_replayed_as_it_was(value: bytes | None) -> None:
    letter = make_letter(record(value), "ingest", EventInvalid("Bad.", "Mend it."))
    again = codec.decode(DEAD_LETTERS, codec.encode(letter))
    assert original(KAFKA, again).value == value


def test_a_record_without_its_value_is_never_replayed_as_a_deletion() -> None:
    huge = record(b" " * limits.DEAD_LETTER_BYTES_MAX)
    letter = make_letter(huge, "ingest", EventInvalid("Too large.", "Split it."))
    assert len(codec.encode(letter)) < DEAD_LETTERS.record_bytes_max
    with pytest.raises(EventInvalid, match="was not kept"):
        original(KAFKA, letter)


@pytest.mark.parametrize(
    "headers",
    [
        [("h", b"")] * (limits.HEADERS_MAX + 1),
        [("h", b" " * (limits.FRAMING_BYTES_MAX + 1))],
        [("h" * (limits.NAME_CHARS_MAX + 1), None)],
    ],
    ids=["many", "large", "long names"],
)
def test_headers_beyond_a_limit_are_left_out_with_the_value(
    headers: list[tuple[str, bytes | None]],
) -> None:
    crowded = dataclasses.replace(record(b"{}"), headers=headers, key=b"k" * 70_000)
    letter = make_letter(crowded, "ingest", EventInvalid("Bad.", "Mend it."))
    assert codec.decode(DEAD_LETTERS, codec.checked(DEAD_LETTERS, letter)).headers == []
    with pytest.raises(EventInvalid, match="was not kept"):
        original(KAFKA, letter)


def test_the_largest_letter_that_is_kept_fits_its_topic() -> None:
    largest = dataclasses.replace(
        record(b" " * limits.DEAD_LETTER_VALUE_BYTES_MAX),
        headers=[("h", b" " * (limits.FRAMING_BYTES_MAX - 3))],
    )
    letter = make_letter(largest, "ingest", EventInvalid("Bad.", "Mend it."))
    assert letter.value_kept
    codec.checked(DEAD_LETTERS, letter)
