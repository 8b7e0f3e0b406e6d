"""Questions about the standard library with known answers: the first sentence of each docstring.

They are public, so a gate may be judged by them. Names are dealt out by their hash: what a
simulated panel teaches from is never what the gate or the final comparison asks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from infra.demo.stdlib_documents import stdlib_documents
from models.prompting import build_messages

Share = Literal["gate", "held-out", "panel"]

# Of every hundred names; the rest are the panel's.
_GATE, _HELD_OUT = 8, 8
_PASSAGE_CHARS_MAX = 400
_ANSWER_CHARS_MIN, _ANSWER_CHARS_MAX = 20, 160


@dataclass(frozen=True, slots=True)
class DocQuestion:
    """A question, a good answer to it, and the beginning of the document that has it."""

    name: str
    question: str
    answer: str
    passage: str


def questions(share: Share) -> list[DocQuestion]:
    """Those of one share, in an order that is random but fixed."""
    return sorted(_dealt()[share], key=lambda found: _digest(found.name))


def write_gate_set(path: Path, questions_max: int = 16) -> None:
    """The gate's questions as the model is asked them, with the passage: JSONL."""
    lines = []
    for found in questions("gate")[:questions_max]:
        messages = build_messages([{"role": "user", "content": found.question}], [found.passage])
        lines.append(json.dumps({"messages": messages, "answer": found.answer}) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")


def first_sentence(doc: str) -> str | None:
    """The first sentence of a docstring, or nothing where it is no sentence of a fair length."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z)][.!?])\s", paragraph)[0]
    fair = _ANSWER_CHARS_MIN <= len(sentence) <= _ANSWER_CHARS_MAX
    return sentence if fair and sentence.endswith(".") else None


@cache
def _dealt() -> dict[Share, list[DocQuestion]]:
    dealt: dict[Share, list[DocQuestion]] = {share: [] for share in get_args(Share)}
    for found in _all():
        number = int(_digest(found.name), 16) % 100
        share: Share = "panel"
        if number < _GATE + _HELD_OUT:
            share = "gate" if number < _GATE else "held-out"
        dealt[share].append(found)
    return dealt


def _all() -> Iterator[DocQuestion]:
    for document in stdlib_documents():
        heading, _, doc = document.text.partition("\n\n")
        answer = first_sentence(doc)
        if answer is not None and "(" in heading:
            name = document.title or ""
            yield DocQuestion(
                name, f"What does {name} do?", answer, document.text[:_PASSAGE_CHARS_MAX]
            )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
