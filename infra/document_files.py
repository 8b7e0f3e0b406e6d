"""Files, folders and standard input as documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from infra.commands.shell import err
from schemas import ids
from schemas.errors import EventInvalid
from schemas.events import Document, MediaType

MEDIA_TYPES: Final[dict[str, MediaType]] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".txt": "text/plain",
    ".rst": "text/plain",
}


def read_documents(
    names: list[str],
    title: str | None = None,
    metadata: dict[str, str | int | float | bool] | None = None,
) -> Iterator[Document]:
    """The documents in files, folders and standard input; raises EventInvalid for what is none."""
    for name in names:
        if name == "-":
            new_id, text = ids.new_id("document"), _standard_input()
            yield Document(text, new_id, "text/plain", title, None, dict(metadata or {}))
            continue
        for path in _paths(Path(name)):
            if path.suffix.lower() == ".jsonl":
                yield from _events(path, title, metadata or {})
            else:
                kind = MEDIA_TYPES.get(path.suffix.lower(), "text/plain")
                yield Document(
                    _text(path), str(path), kind, title or path.name, None, dict(metadata or {})
                )


def _paths(path: Path) -> list[Path]:
    try:
        return _readable(path)
    except OSError as error:
        raise EventInvalid(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def _readable(path: Path) -> list[Path]:
    if path.is_dir():
        readable = {*MEDIA_TYPES, ".jsonl"}
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in readable and p.is_file())
        if not found:
            err.print(f"{path} holds no text, Markdown, HTML or .jsonl file", markup=False)
        return found
    if not path.is_file():
        raise EventInvalid(f"{path} is no file.", "Check the path.")
    return [path]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EventInvalid(f"{path} cannot be read: {error}.", "Publish UTF-8 text.") from None


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise EventInvalid(f"This input cannot be read: {error}.", "Pipe UTF-8 text.") from None


def _events(
    path: Path, title: str | None, metadata: dict[str, str | int | float | bool]
) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(Document)
    # Not splitlines: JSON may hold U+2028 and others that it takes for the end of a line.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            try:
                document = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise EventInvalid(
                    f"{path}:{number}: {error}.", "Put one document event on each line."
                ) from None
            key = document.document_id or ids.new_id("document")
            yield msgspec.structs.replace(
                document,
                document_id=key,
                title=title if document.title is None else document.title,
                metadata=metadata | document.metadata,
            )
