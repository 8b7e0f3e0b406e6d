"""Record headers: CloudEvents 1.0 (Kafka binding, binary mode) and W3C Trace Context.

All are optional for readers: a record from somebody's console producer has none.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

from schemas.topics import Topic

Headers = list[tuple[str, bytes]]

TYPE_PREFIX: Final = "io.headwater."
CONTENT_TYPE: Final = b"application/json"


def event_type(topic: Topic) -> str:
    """The CloudEvents type of a topic's events, such as `io.headwater.document`."""
    name = topic.event.__name__
    return TYPE_PREFIX + "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def make_headers(
    topic: Topic, event_id: str, source: str, traceparent: str | None = None
) -> Headers:
    """Headers of a new record; without `traceparent` a new trace begins here."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", _type_bytes(topic)),
        ("ce_source", source.encode()),
        ("ce_time", _now_iso().encode()),
        ("content-type", CONTENT_TYPE),
        ("traceparent", (traceparent or new_traceparent()).encode()),
    ]


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
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


def child_traceparent(parent: str | None) -> str:
    """The same trace with a new span; a malformed or absent parent begins a new trace."""
    if parent is None or not _well_formed(parent):
        return new_traceparent()
    version, trace_id, _, flags = parent.split("-")
    return f"{version}-{trace_id}-{os.urandom(8).hex()}-{flags}"


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


def _now_iso() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
