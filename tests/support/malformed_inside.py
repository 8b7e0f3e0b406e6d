"""Twenty kinds of records that no agent can use, for the topics that agents write themselves."""

from __future__ import annotations

import base64
import json
import random
import struct

from malformed import Kind

from schemas.limits import RECORD_BYTES_MAX

EMBEDDER, DIM = "all-MiniLM-L6-v2", 384


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _id(rng: random.Random) -> str:
    return f"id-{rng.getrandbits(60)}"


def _key(rng: random.Random) -> bytes:
    return _id(rng).encode()


def _embedding(*numbers: float) -> str:
    """As it stands in the JSON; zeros up to the dimension of the embedder."""
    vector = [*numbers, *[0.0] * (DIM - len(numbers))]
    return base64.b64encode(struct.pack(f"<{DIM}f", *vector)).decode()


def _passage(passage_id: str, **fields: object) -> bytes:
    usual = {
        "passage_id": passage_id,
        "document_id": "d",
        "index": 0,
        "text": "wet",
        "embedding": _embedding(1.0),
        "embedder": EMBEDDER,
        "published_ms": 1,
    }
    return _json(usual | fields)


def _made(**fields: object) -> Kind:
    """A passage that agrees with its key, but for some fields."""

    def kind(rng: random.Random) -> tuple[bytes, bytes]:
        key = _id(rng)
        return key.encode(), _passage(key, **fields)

    return kind


def passage_kinds() -> list[Kind]:
    """Ten kinds for `passages`."""
    return [
        lambda rng: (_key(rng), rng.randbytes(rng.randint(1, 200)) + b"\xff"),
        lambda rng: (_key(rng), b""),
        lambda rng: (_key(rng), _passage(_id(rng))),
        _made(embedder="another"),
        _made(embedding=_embedding(1.0)[:40]),
        _made(embedding="no base64!"),
        _made(embedding=_embedding(float("nan"))),
        _made(embedding=_embedding(float("inf"))),
        _made(embedding=_embedding(3.0, 4.0)),
        _made(index=-1),
    ]


def context_kinds() -> list[Kind]:
    """Ten kinds for `contexts`."""

    def context(prompt_id: str, **fields: object) -> bytes:
        prompt = {"messages": [{"role": "user", "content": "why?"}]}
        usual = {"prompt_id": prompt_id, "prompt": prompt, "passages": []}
        return _json(usual | {"prompted_ms": 1, "retrieved_ms": 1} | fields)

    def made(**fields: object) -> Kind:
        return lambda rng: (None, context(_id(rng), **fields))

    return [
        lambda rng: (_key(rng), rng.randbytes(rng.randint(1, 200)) + b"\xff"),
        lambda rng: (None, b""),
        lambda rng: (_key(rng), context(_id(rng))),
        lambda rng: (None, context("")),
        lambda rng: (None, context("i" * (257 + rng.randint(0, 9)))),
        made(prompt={"messages": []}),
        made(passages=[{"passage_id": "p", "document_id": "d", "text": "t", "score": None}]),
        made(prompted_ms=-1),
        made(retrieved_ms="yesterday"),
        lambda rng: (None, context(_id(rng), note="x" * (4 * RECORD_BYTES_MAX))),
    ]
