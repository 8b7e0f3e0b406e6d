"""What the fake server says: words drawn by hashing, or JSON, as HTTP and server-sent events."""

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


PENALTIES = ("frequency_penalty", "presence_penalty", "repetition_penalty")


def tokens(body: dict[str, Any], room: int) -> list[tuple[str, str | None]]:
    """All of an answer: text and, with the last, the reason to end."""
    if "response_format" in body:
        return json_tokens(body["response_format"])
    asked = json.dumps(body["messages"])
    seed = body["seed"] if body["temperature"] else 0
    model = [body["model"], *(body.get(penalty, 0) for penalty in PENALTIES)]
    most = min(body.get("max_tokens", room), room)
    text, found = "", []
    for number in range(most):
        draw = hashlib.sha256(f"{model} {seed} {asked} {number}".encode()).digest()
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


def json_tokens(asked: dict[str, Any]) -> list[tuple[str, str | None]]:
    """A value that the schema allows, three characters a token."""
    text = json.dumps(value(asked["json_schema"]["schema"] if "json_schema" in asked else {}))
    parts = [text[start : start + 3] for start in range(0, len(text), 3)]
    return [*((part, None) for part in parts[:-1]), (parts[-1], "stop")]


def value(schema: dict[str, Any]) -> object:
    if schema.get("type", "object") == "object" and "enum" not in schema:
        return {name: value(inner) for name, inner in schema.get("properties", {}).items()}
    return schema["enum"][0] if "enum" in schema else True


def told(body: dict[str, Any], text: str, reason: str | None, stop: str | None) -> dict[str, Any]:
    """What the choice of a chunk has besides, in vLLM's way: of an end token, too."""
    more: dict[str, Any] = {} if reason is None else {"stop_reason": stop}
    if body.get("logprobs"):
        entries = [text, "<|im_end|>"] if reason == "stop" and stop is None else [text]
        more["logprobs"] = {"content": [entry(word, body["top_logprobs"]) for word in entries]}
    return more


def entry(word: str, top: int) -> dict[str, Any]:
    """A token that was chosen although another was likelier; the chosen one comes first."""
    likely = [(word, -1.5), ("other", -0.5), ("third", -9.0)][:top]
    return {**one(word, -1.5), "top_logprobs": [one(*pair) for pair in likely]}


def one(word: str, logprob: float) -> dict[str, Any]:
    return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def choice(reason: str | None = None, **delta: str) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


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
