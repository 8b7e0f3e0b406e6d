"""What the fake server says: words drawn by hashing, as HTTP and server-sent events."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

# With an emoji, and with line separators that end no line of JSON.
WORDS = ["the ", "river ", "carries ", "documents ", "down ", "🌊 ", "again\u2028and\x85again "]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Refused(Exception):
    """An answer with an error's status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def tokens(body: dict[str, Any], room: int) -> list[tuple[str, str | None]]:
    """All of an answer: text and, with the last, the reason to end."""
    asked = json.dumps(body["messages"])
    seed = body["seed"] if body["temperature"] else 0
    most = min(body.get("max_tokens", room), room)
    text, found = "", []
    for number in range(most):
        draw = hashlib.sha256(f"{body['model']} {seed} {asked} {number}".encode()).digest()
        word = WORDS[draw[0] % len(WORDS)]
        stops = [place for stop in body.get("stop", ()) if (place := (text + word).find(stop)) >= 0]
        if stops:
            return [*found, ((text + word)[len(text) : min(stops)], "stop")]
        # "hello" is answered by a few words.
        if "hello" in asked and number == 7:
            return [*found, (word, "stop")]
        text += word
        found.append((word, "length" if number == most - 1 else None))
    return found


def choice(reason: str | None = None, **delta: str) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def write_event(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    """An event with a comment before it, cut in the midst."""
    data = json.dumps({"object": "chat.completion.chunk", **value}, ensure_ascii=False).encode()
    for part in (b": ping\r\n\r\n", b"data: ", data[:9], data[9:], b"\r\n\r\n"):
        writer.write(chunk(part))


def chunk(data: bytes) -> bytes:
    """A part of a body, in HTTP's chunked coding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def write_answer(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\nRetry-After: 0\r\n\r\n"
    writer.write(head.encode() + body)
