"""Who looks at the page: the API key that was typed in, kept in the memory of this one tab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nicegui import app, ui

from agents.gateway.access.caller import Caller, known_caller
from agents.gateway.errors import ApiError
from agents.gateway.state import Gateway

# A browser's own id is long; enough of it tells browsers apart.
_ID_CHARS: Final = 16


@dataclass(slots=True)
class Visitor:
    """One open page."""

    gateway: Gateway
    secret: str | None = None

    def caller(self) -> Caller:
        """The caller, whose request is counted. Raises ApiError (401, 429)."""
        return known_caller(self.gateway, self.secret)

    def user_id(self, caller: Caller) -> str | None:
        """This browser, as a user of the caller: the unit that privacy is counted by."""
        return caller.user_id(f"page-{str(app.storage.browser['id'])[:_ID_CHARS]}")

    def may(self, scope: str) -> Caller:
        """The caller, if the key allows this. Raises ApiError."""
        caller = self.caller()
        caller.require(scope)
        return caller

    @property
    def welcome(self) -> bool:
        """Whether the page may show anything."""
        keys = self.gateway.keys
        keys.look()
        return not keys.required or (self.secret is not None and keys.find(self.secret) is not None)


def ask_for_key(visitor: Visitor, then: Callable[[], None]) -> None:
    """Show a field for the API key, and `then` the page in its place."""

    def check() -> None:
        visitor.secret = key.value
        if visitor.welcome:
            card.delete()
            then()
        else:
            ui.notify("That key is not known.", type="negative")

    with ui.card().classes("mx-auto mt-8") as card:
        ui.label("This river needs an API key.")
        key = ui.input("API key", password=True).props("autofocus").classes("w-full")
        key.on("keydown.enter", check)
        ui.button("Open", on_click=check)


def tell(error: Exception) -> None:
    """Show an error; a foreign one is the log's business."""
    said = error.message if isinstance(error, ApiError) else str(error)
    ui.notify(said, type="negative", multi_line=True, close_button=True)
