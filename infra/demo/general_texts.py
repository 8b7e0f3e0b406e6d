"""General English that comes with Python and is of no stream: what study must not unlearn.

The language reference and the docstrings of the standard library, in pieces of some hundred words.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from pydoc_data.topics import topics

from infra.demo.stdlib_documents import stdlib_documents

_CHARS_MAX = 800


def general_texts() -> list[str]:
    """In an order that is random but fixed."""
    whole = [*topics.values(), *(document.text for document in stdlib_documents())]
    pieces = {piece for text in whole for piece in _pieces(text)}
    return sorted(pieces, key=lambda piece: hashlib.sha256(piece.encode()).hexdigest())


def write_general_set(path: Path, texts_max: int = 256) -> None:
    """Some of them as study reads them: JSONL."""
    lines = [json.dumps({"text": text}) + "\n" for text in general_texts()[:texts_max]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")


def _pieces(text: str) -> list[str]:
    """Paragraphs together, up to `_CHARS_MAX` characters."""
    pieces: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if pieces and len(pieces[-1]) + len(paragraph) < _CHARS_MAX:
            pieces[-1] += f"\n\n{paragraph}"
        else:
            pieces.append(paragraph[:_CHARS_MAX])
    return pieces
