"""`headwater publish`: files become documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from infra.commands.shell import AsJson, err, out, print_json, run, scalars
from infra.freshness import Freshness
from schemas import ids
from schemas.errors import EventInvalid
from schemas.events import Document, MediaType
from streams.client import Client

MEDIA_TYPES: Final[dict[str, MediaType]] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".txt": "text/plain",
    ".rst": "text/plain",
}


def publish(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…",
            help="Text, Markdown or HTML files, folders of them, .jsonl of document events, or - "
            "for standard input. With --delete: document ids.",
        ),
    ],
    document_id: Annotated[
        str | None, typer.Option("--id", help="Id of the only document; else its path.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of every document.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to filter by; may be repeated.")
    ] = None,
    delete: Annotated[bool, typer.Option(help="Delete the documents of these ids.")] = False,
    wait: Annotated[
        bool, typer.Option(help="Wait until each document can be retrieved, and say how long.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish files as documents; they can be retrieved moments later."""
    if delete:
        run(_delete(files, as_json))
        return
    shared = scalars(metadata or [], "metadata")
    documents = list(read_documents(files, title, shared))
    if document_id is not None:
        if len(documents) != 1:
            raise EventInvalid(f"--id names one document, not {len(documents)}.", "Leave it out.")
        documents = [msgspec.structs.replace(documents[0], document_id=document_id)]
    run(_publish(documents, wait, as_json))


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
            if path.suffix == ".jsonl":
                yield from _events(path)
            else:
                kind = MEDIA_TYPES.get(path.suffix.lower(), "text/plain")
                yield Document(
                    _text(path), str(path), kind, title or path.name, None, dict(metadata or {})
                )


async def _publish(documents: list[Document], wait: bool, as_json: bool) -> None:
    async with Client(source="/cli") as client:
        freshness = Freshness(client) if wait else None
        if freshness is not None:
            await freshness.open()
        await client.publish_documents(documents)
        for document in documents:
            if as_json:
                print_json({"document_id": document.document_id})
            else:
                out.print(f"published {document.document_id}", markup=False)
        if freshness is not None:
            await _report(freshness, [d.document_id or "" for d in documents], as_json)


async def _report(freshness: Freshness, document_ids: list[str], as_json: bool) -> None:
    try:
        async for document_id, fresh_ms in freshness.of(document_ids):
            if as_json:
                print_json({"document_id": document_id, "freshness_ms": fresh_ms})
            else:
                out.print(f"retrievable {document_id} after {fresh_ms:.0f} ms", markup=False)
    finally:
        await freshness.close()


async def _delete(document_ids: list[str], as_json: bool) -> None:
    async with Client(source="/cli") as client:
        for document_id in document_ids:
            await client.delete_document(document_id)
            if as_json:
                print_json({"document_id": document_id, "deleted": True})
            else:
                out.print(f"deleted {document_id}", markup=False)


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in {*MEDIA_TYPES, ".jsonl"})
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


def _events(path: Path) -> Iterator[Document]:
    decoder = msgspec.json.Decoder(Document)
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            try:
                document = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise EventInvalid(
                    f"{path}:{number}: {error}.", "Put one document event on each line."
                ) from None
            key = document.document_id or ids.new_id("document")
            yield msgspec.structs.replace(document, document_id=key)
