"""General English that comes with Python: what study must not unlearn.

The language reference and the docstrings of the standard library, in pieces of some hundred words,
and answers in a chat.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from pydoc_data.topics import topics

import msgspec

from infra.demo.questions import questions
from infra.demo.stdlib_documents import stdlib_documents
from models.prompting import build_messages
from models.studying.general import GeneralItem

_CHARS_MAX = 800
# In a signature: it is another one in each process, and the texts must be the same.
_ADDRESS = " at 0x"


def general_texts() -> list[str]:
    """In an order that is random but fixed."""
    whole = [*topics.values(), *(document.text for document in stdlib_documents())]
    pieces = {piece for text in whole for piece in _pieces(text) if _ADDRESS not in piece}
    return sorted(pieces, key=_digest)


def general_items(texts_max: int = 120, answers_max: int = 80) -> list[GeneralItem]:
    """Texts, and answers to questions that learn's gate does not ask, well mixed."""
    items = [GeneralItem(text=text) for text in general_texts()[:texts_max]]
    asked_of = [found for found in questions("panel") if _ADDRESS not in found.passage]
    for found in asked_of[:answers_max]:
        asked = build_messages([{"role": "user", "content": found.question}], [found.passage])
        items.append(GeneralItem(messages=tuple(asked), answer=found.answer))
    return sorted(items, key=lambda item: _digest(item.text or item.answer))


def write_general_set(path: Path) -> None:
    """Some of them as study reads them: JSONL."""
    lines = [msgspec.json.encode(item) + b"\n" for item in general_items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pieces(text: str) -> list[str]:
    """Paragraphs together, up to `_CHARS_MAX` characters."""
    pieces: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if pieces and len(pieces[-1]) + len(paragraph) < _CHARS_MAX:
            pieces[-1] += f"\n\n{paragraph}"
        else:
            pieces.append(paragraph[:_CHARS_MAX])
    return pieces
