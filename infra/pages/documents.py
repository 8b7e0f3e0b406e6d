"""Documents: add one, watch it become retrievable, delete it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nicegui import ui

from agents.gateway.document_state import DocumentState, document_state
from agents.gateway.errors import ApiError
from infra.pages.visitor import Visitor, tell
from schemas import ids
from schemas.errors import HeadwaterError

_POLL_S: Final = 1.0


@dataclass(slots=True)
class _Row:
    """A document that this page added or looked up."""

    document_id: str
    state: DocumentState | None = None
    deleted: bool = False

    def told(self) -> dict[str, Any]:
        said: str = self.state.state if self.state else "not there"
        if self.deleted:
            said = "deleted"
        took = ""
        if self.state is not None and self.state.passages_ms and self.state.published_ms:
            took = f"{self.state.passages_ms - self.state.published_ms} ms"
        passages = self.state.passages if self.state else 0
        return {"id": self.document_id, "state": said, "took": took, "passages": passages}


class Documents:
    """A form, and a table of the documents that it is about."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._rows: dict[str, _Row] = {}
        with ui.column().classes("w-full max-w-3xl mx-auto"):
            self._name = ui.input("Id (empty: a new one)").classes("w-full")
            self._title = ui.input("Title").classes("w-full")
            self._text = ui.textarea("Text").props("outlined").classes("w-full")
            with ui.row():
                ui.button("Add", on_click=self._add)
                ui.button("Look up", on_click=self._look_up).props("flat")
                ui.button("Delete", on_click=self._delete).props("flat color=negative")
            names = {"id": "document", "state": "state", "took": "after", "passages": "passages"}
            self._table = ui.table(
                columns=[
                    {"name": key, "label": label, "field": key, "align": "left"}
                    for key, label in names.items()
                ],
                rows=[],
                row_key="id",
            ).classes("w-full")
        ui.timer(_POLL_S, self._refresh)

    async def _add(self) -> None:
        text = self._text.value or ""
        if not text.strip():
            ui.notify("A document needs some text.")
            return
        try:
            self._visitor.may("documents")
            document_id = await self._visitor.gateway.client.publish_document(
                text,
                document_id=(self._name.value or "").strip() or ids.new_id("document"),
                title=(self._title.value or "").strip() or None,
            )
        except (HeadwaterError, ApiError) as error:
            tell(error)
            return
        self._show(_Row(document_id))
        self._text.value = ""

    async def _delete(self) -> None:
        if document_id := (self._name.value or "").strip():
            try:
                self._visitor.may("documents")
                await self._visitor.gateway.client.delete_document(document_id)
            except (HeadwaterError, ApiError) as error:
                tell(error)
                return
            self._show(_Row(document_id, deleted=True))

    async def _look_up(self) -> None:
        if document_id := (self._name.value or "").strip():
            state = await document_state(self._visitor.gateway.kafka, document_id)
            self._show(_Row(document_id, state))

    async def _refresh(self) -> None:
        """Ask for those that are on their way."""
        for row in list(self._rows.values()):
            if not row.deleted and (row.state is None or row.state.state == "published"):
                row.state = await document_state(self._visitor.gateway.kafka, row.document_id)
                self._show(row)

    def _show(self, row: _Row) -> None:
        self._rows[row.document_id] = row
        self._table.rows = [found.told() for found in reversed(self._rows.values())]
        self._table.update()
