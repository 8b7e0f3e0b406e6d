"""Stable ids: what derives from something has an id that derives from it; replay is idempotent."""

from __future__ import annotations

import os
from hashlib import sha256

from schemas.clock import now_ms


def new_id(kind: str) -> str:
    """A fresh id such as `prompt-019a…`: 48 bits of Unix milliseconds, then 80 random bits.

    The time comes first, as in RFC 9562's UUIDv7, so that ids sort by their making.
    """
    return f"{kind}-{now_ms():012x}{os.urandom(10).hex()}"


def generation_id(prompt_id: str) -> str:
    """The one generation of a prompt."""
    return f"generation-{sha256(prompt_id.encode()).hexdigest()[:32]}"


def passage_id(document_id: str, index: int) -> str:
    """The passage at a 0-based position of a document."""
    return f"{document_id}#{index}"


def record_id(topic: str, partition: int, offset: int) -> str:
    """The id of an event that names none: where its record stands, the same at every replay."""
    return f"{topic}-{partition}-{offset}"


def seed(prompt_id: str) -> int:
    """The sampling seed of a prompt that names none: a replayed prompt draws the same tokens."""
    return int.from_bytes(sha256(prompt_id.encode()).digest()[:6], "big")


def example_id(prompt_id: str, feedback_id: str) -> str:
    """The example that a piece of feedback on a prompt's answer becomes, however often it comes."""
    named = b"%b\0%b" % (prompt_id.encode(), feedback_id.encode())
    return f"example-{sha256(named).hexdigest()[:32]}"
