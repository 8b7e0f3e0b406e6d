"""CloudEvents headers and W3C trace context."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import headers
from schemas.topics import DEAD_LETTERS, PROMPTS, TOKENS, TOPICS

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
MALFORMED = [
    "",
    "garbage",
    PARENT.upper(),
    PARENT + "-00",
    PARENT.replace("00-", "ff-", 1),
    PARENT.replace(TRACE, "0" * 32),
    PARENT.replace("b7ad6b7169203331", "0" * 16),
    PARENT.replace("b7ad", "b7ag"),
    "0-0-0-0",
]


def test_a_record_carries_the_cloudevents_attributes() -> None:
    made = dict(headers.make_headers(PROMPTS, "event-1", "/sdk/python", PARENT))
    at = datetime.fromisoformat(made.pop("ce_time").decode())
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert made == {
        "ce_specversion": b"1.0",
        "ce_id": b"event-1",
        "ce_type": b"io.headwater.prompt",
        "ce_source": b"/sdk/python",
        "content-type": b"application/json",
        "traceparent": PARENT.encode(),
    }


def test_event_types_are_distinct_snake_case_names() -> None:
    assert headers.event_type(TOKENS) == "io.headwater.token_chunk"
    assert headers.event_type(DEAD_LETTERS) == "io.headwater.dead_letter"
    assert len({headers.event_type(topic) for topic in TOPICS}) == len(TOPICS)


def test_without_a_parent_a_new_trace_begins() -> None:
    first, second = (
        dict(headers.make_headers(PROMPTS, "e", "/s"))["traceparent"].decode() for _ in range(2)
    )
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert headers.trace_id(first) != headers.trace_id(second)


def test_a_child_keeps_the_trace_and_has_a_span_of_its_own() -> None:
    child = headers.child_traceparent(PARENT)
    assert headers.trace_id(child) == TRACE
    assert child != PARENT
    assert headers.child_traceparent(PARENT[:-2] + "00").endswith("-00")


@pytest.mark.parametrize("parent", MALFORMED)
def test_a_malformed_parent_begins_a_new_trace(parent: str) -> None:
    assert headers.trace_id(parent) is None
    assert headers.trace_id(headers.child_traceparent(parent)) not in (None, TRACE)


@given(st.text())
def test_whatever_the_parent_the_child_is_well_formed(parent: str) -> None:
    assert headers.trace_id(headers.child_traceparent(parent)) is not None


def test_the_last_value_of_a_header_counts() -> None:
    given_headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", b"2"), ("b", None)]
    assert headers.header(given_headers, "a") == "2"
    assert headers.header(given_headers, "b") is None
    assert headers.header(given_headers, "c") is None
    assert headers.header(None, "a") is None
    assert headers.header([("a", b"\xff")], "a") is None
