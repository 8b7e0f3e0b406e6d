"""Twenty kinds of records that no agent can use, each different every time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

Kind = Callable[[random.Random], tuple[bytes | None, bytes]]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _words(rng: random.Random, count: int = 5) -> str:
    return " ".join(rng.choice(["river", "lake", "sea", "stream"]) for _ in range(count))


def _key(rng: random.Random) -> bytes:
    """`documents` is compacted: the broker itself refuses records without a key."""
    return b"key-%d" % rng.getrandbits(60)


def document_kinds() -> list[Kind]:
    """Ten kinds for `documents`."""
    return [
        lambda rng: (_key(rng), rng.randbytes(rng.randint(1, 200)) + b"\xff"),
        lambda rng: (_key(rng), _words(rng).encode()),
        lambda rng: (_key(rng), _json({"text": rng.randint(0, 9)})),
        lambda rng: (_key(rng), _json({"title": _words(rng)})),
        lambda rng: (_key(rng), _json([_words(rng)])),
        lambda rng: (_key(rng), _json({"text": _words(rng)})[: -rng.randint(1, 5)]),
        lambda rng: (_key(rng), _json({"text": _words(rng), "media_type": "image/png"})),
        lambda rng: (b"key-a", _json({"text": _words(rng), "document_id": "key-b"})),
        lambda rng: (_key(rng), _json({"text": "x" * (400_001 + rng.randint(0, 9))})),
        lambda rng: (b"k" * (257 + rng.randint(0, 9)), _json({"text": _words(rng)})),
    ]


def prompt_kinds() -> list[Kind]:
    """Ten kinds for `prompts`."""

    def prompt(rng: random.Random, **fields: object) -> bytes:
        return _json({"messages": [{"role": "user", "content": _words(rng)}], **fields})

    return [
        lambda rng: (None, b""),
        lambda rng: (None, b"[" * rng.randint(2_000, 20_000)),
        lambda rng: (None, _json({"messages": []})),
        lambda rng: (None, _json({"messages": [{"role": "wizard", "content": _words(rng)}]})),
        lambda rng: (None, prompt(rng, sampling={"max_tokens": -rng.randint(0, 9)})),
        lambda rng: (None, prompt(rng, sampling={"temperature": 2.5 + rng.random()})),
        lambda rng: (None, prompt(rng, retrieval={"mode": "psychic"})),
        lambda rng: (None, prompt(rng, retrieval={"top_k": 51 + rng.randint(0, 9)})),
        lambda rng: (None, prompt(rng, sampling={"stop": [""]})),
        lambda rng: (None, prompt(rng, reply_partition=-1 - rng.randint(0, 9))),
    ]
