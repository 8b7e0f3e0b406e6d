"""What the engine and its peers are asked: questions about docstrings, answers of mixed lengths."""

from __future__ import annotations

import functools
import random
from typing import Final

import msgspec

from infra.demo.stdlib_documents import stdlib_documents
from models.prompting import build_messages
from schemas.events import Document

# Prompts of some 60 to 400 tokens.
_PASSAGE_CHARS_MAX: Final = 1_500
HEADWATER: Final = "headwater"
# The same engine, but that it never guesses a token.
UNGUESSED: Final = "no guesses"
OURS: Final = (HEADWATER, UNGUESSED)
ANSWER_TOKENS: Final = (16, 160)
# Mean pause of a client between an answer and its next request, exponentially distributed.
PAUSE_S: Final = 0.05


class Asked(msgspec.Struct, frozen=True):
    """One request: chat messages, and the most tokens of its answer."""

    messages: list[dict[str, str]]
    max_tokens: int


class Task(msgspec.Struct, frozen=True):
    """What one process has to measure. `concurrency` is a batch's size for static batches."""

    contestant: str
    concurrency: int
    requests: list[Asked]
    warm_up: list[Asked]
    adapters: int = 0
    threads: int | None = None


class Measured(msgspec.Struct):
    """Of one task. Seconds from the first request to the last token; milliseconds where asked."""

    contestant: str
    concurrency: int
    tokens: int
    seconds: float
    first_token_ms: list[float] = []
    inter_token_ms: list[float] = []
    note: str = ""
    adapters: int = 0
    round: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def make_requests(count: int, seed: int = 0) -> list[Asked]:
    """The same ones for each seed."""
    rng = random.Random(seed)
    documents = [d for d in _documents() if len(d.text) > 200]
    return [
        Asked(
            [
                dict(message)
                for message in build_messages(
                    [{"role": "user", "content": f"What is {document.title} for?"}],
                    [document.text[: rng.randint(200, _PASSAGE_CHARS_MAX)]],
                )
            ],
            rng.randint(*ANSWER_TOKENS),
        )
        for document in rng.sample(documents, count)
    ]


@functools.cache
def _documents() -> list[Document]:
    return list(stdlib_documents())
