"""`headwater publish`: files become documents."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import msgspec
import typer

from infra.commands.shell import AsJson, out, print_json, run, scalars
from infra.commands.silence import told_while_silent
from infra.document_files import read_documents
from infra.freshness import Freshness
from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import Document
from schemas.topics import DOCUMENTS
from streams.client import Client
from streams.hops import DOCUMENT_HOPS, missing_workers
from streams.settings import KafkaSettings


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
    title: Annotated[
        str | None, typer.Option(help="Title of the documents that name none.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE to filter by, where a document has no such name."),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the documents of these ids.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until each document can be retrieved, and say how long."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish files as documents; they can be retrieved moments later."""
    if delete:
        if document_id or title or metadata or wait:
            raise typer.BadParameter("--delete takes document ids and nothing else.")
        run(_delete(files, as_json))
        return
    shared = scalars(metadata or [], "metadata")
    documents = list(read_documents(files, title, shared))
    if document_id is not None:
        if len(documents) != 1:
            raise EventInvalid(f"--id names one document, not {len(documents)}.", "Leave it out.")
        documents = [msgspec.structs.replace(documents[0], document_id=document_id)]
    # All before the first is sent: half a folder would be neither published nor not.
    for document in documents:
        codec.checked(DOCUMENTS, document)
    run(_publish(documents, wait, as_json))


async def _publish(documents: list[Document], wait: bool, as_json: bool) -> None:
    async with Client(source="/cli") as client, AsyncExitStack() as stack:
        freshness = Freshness(client)
        if wait:
            await freshness.open()
            stack.push_async_callback(freshness.close)
        await client.publish_documents(documents)
        for document in documents:
            if as_json:
                print_json({"document_id": document.document_id})
            else:
                out.print(f"published {document.document_id}", markup=False)
        if wait:
            await _report(client.settings, freshness, documents, as_json)


async def _report(
    kafka: KafkaSettings, freshness: Freshness, documents: list[Document], as_json: bool
) -> None:
    awaited = _with_words(documents, as_json)
    come = 0

    async def waits_for() -> str | None:
        return await asyncio.to_thread(missing_workers, kafka, DOCUMENT_HOPS)

    async with told_while_silent(waits_for, lambda: come > 0):
        async for document_id, fresh_ms in freshness.of(awaited):
            come += 1
            if as_json:
                print_json({"document_id": document_id, "freshness_ms": fresh_ms})
            else:
                out.print(f"retrievable {document_id} after {fresh_ms:.0f} ms", markup=False)


def _with_words(documents: list[Document], as_json: bool) -> list[str]:
    """The ids of the documents that can become retrievable; says which others cannot."""
    # Imported late: with it come an HTML parser and the splitters.
    from models.documents import readable_text

    awaited = []
    for document in documents:
        if readable_text(document.text, document.media_type):
            awaited.append(document.document_id or "")
        elif as_json:
            print_json({"document_id": document.document_id, "freshness_ms": None})
        else:
            out.print(
                f"{document.document_id} is empty: there is nothing to retrieve", markup=False
            )
    return awaited


async def _delete(document_ids: list[str], as_json: bool) -> None:
    async with Client(source="/cli") as client:
        for document_id in document_ids:
            await client.delete_document(document_id)
            if as_json:
                print_json({"document_id": document_id, "deleted": True})
            else:
                out.print(f"deleted {document_id}", markup=False)
