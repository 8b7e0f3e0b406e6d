"""Record headers: CloudEvents 1.0 (Kafka binding, binary mode) and W3C Trace Context.

All are optional for readers: a record from somebody's console producer has none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Final

from schemas.clock import now_ms
from schemas.topics import Topic

Headers = list[tuple[str, bytes]]

TYPE_PREFIX: Final = "io.headwater."
CONTENT_TYPE: Final = b"application/json"
# Of the records that share one time: formatting a number for each costs as much as all else.
_LAST_DIGITS: Final = [b"%02d" % number for number in range(100)]


def event_type(topic: Topic) -> str:
    """The CloudEvents type of a topic's events, such as `io.headwater.document`."""
    name = topic.event.__name__
    return TYPE_PREFIX + "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def make_headers(
    topic: Topic, event_id: str, source: str, traceparent: str | None = None
) -> Headers:
    """Headers of a new record; without `traceparent` a new trace begins here."""
    return [
        ("ce_id", event_id.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_type", _type_bytes(topic)),
        ("ce_source", source.encode()),
        ("content-type", CONTENT_TYPE),
        ("ce_time", _now_iso()),
        ("traceparent", (traceparent or new_traceparent()).encode()),
    ]


def header_series(topic: Topic, source: str, group: str) -> Iterator[Headers]:
    """Headers of one record after another that are published by one operation.

    They share its trace, as OpenTelemetry's messaging conventions allow for batches, and a time
    that is made anew every so many records. `group` is an id; the events' ids count on from it.
    Each list is good until the next is taken: it may be the same one with another id.
    """
    trace = new_traceparent()
    for hundreds in count():
        made = make_headers(topic, group, source, trace)
        prefix = b"%b-%d" % (group.encode(), hundreds)
        for last_digits in _LAST_DIGITS:
            made[0] = ("ce_id", prefix + last_digits)
            yield made


def header(headers: list[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """The last value of one header as text, or None where it is absent or no text."""
    for key, value in reversed(headers or []):
        if key == name and value is not None:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
    return None


def new_traceparent() -> str:
    """A sampled root span (W3C Trace Context, section 3.2)."""
    digits = f"{_random_bits(192) | _NEVER_ZERO:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-01"


def child_traceparent(parent: str | None) -> str:
    """The same trace with a new span; a malformed or absent parent begins a new trace."""
    if parent is None or not _well_formed(parent):
        return new_traceparent()
    version, trace_id, _, flags = parent.split("-")
    return f"{version}-{trace_id}-{_random_bits(64) | 1:016x}-{flags}"


def trace_id(traceparent: str | None) -> str | None:
    """The 32 hexadecimal digits that all records of one prompt share."""
    return traceparent.split("-")[1] if traceparent and _well_formed(traceparent) else None


def _well_formed(traceparent: str) -> bool:
    parts = traceparent.split("-")
    if [len(part) for part in parts] != [2, 32, 16, 2] or parts[0] == "ff":
        return False
    if not set("".join(parts)) <= set("0123456789abcdef"):
        return False
    return parts[1] != "0" * 32 and parts[2] != "0" * 16


def _type_bytes(topic: Topic) -> bytes:
    found = _TYPE_BYTES.get(topic.name)
    if found is None:
        found = _TYPE_BYTES[topic.name] = event_type(topic).encode()
    return found


_TYPE_BYTES: dict[str, bytes] = {}


def _now_iso() -> bytes:
    """UTC now to the millisecond, formatted once for all records of the same second."""
    global _second
    read_ms = now_ms()
    seconds, milliseconds = divmod(read_ms, 1_000)
    if _second[0] != seconds:
        _second = seconds, datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return b"%b.%03dZ" % (_second[1].encode(), milliseconds)


# The second and its text change together, as one reference, so threads need no lock.
_second: tuple[int, str] = (0, "")
# Ids of traces must be unique, not secret: a generator seeded by the system is enough.
_random_bits = random.Random().getrandbits
# Neither the trace id nor the span id may be all zeros.
_NEVER_ZERO: Final = (1 << 64) | 1
