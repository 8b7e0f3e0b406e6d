"""Puts the live page beside the gateway's API, at `/ui`."""

from __future__ import annotations

import hmac
from typing import Final

from fastapi import FastAPI
from nicegui import ui
from starlette.responses import RedirectResponse

from agents.gateway.state import Gateway
from infra.pages.chat import Chat
from infra.pages.documents import Documents
from infra.pages.learning import Learning
from infra.pages.learning_state import LearningWatch
from infra.pages.river import River
from infra.pages.river_watch import RiverWatch
from infra.pages.visitor import Visitor, ask_for_key

PATH: Final = "/ui"


def mount_page(app: FastAPI, gateway: Gateway) -> None:
    """One page with a tab for each purpose; nothing of it is loaded from elsewhere."""
    watch, learning = RiverWatch(gateway.kafka), LearningWatch(gateway.kafka)

    @ui.page("/", title="Headwater")
    def page() -> None:
        visitor = Visitor(gateway)
        content = ui.context.client.content

        def show() -> None:
            with content:
                _tabs(visitor, watch, learning)

        if visitor.welcome:
            show()
        else:
            ask_for_key(visitor, show)

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH}/")

    # Cookies hold no more than the id of a browser; the key is none of those used elsewhere.
    cookie_key = hmac.digest(gateway.secret, b"page cookies", "sha256").hex()
    ui.run_with(
        app,
        mount_path=PATH,
        title="Headwater",
        dark=None,  # as the browser prefers
        storage_secret=cookie_key,
        show_welcome_message=False,
    )


def _tabs(visitor: Visitor, watch: RiverWatch, learning: LearningWatch) -> None:
    with ui.header().classes("items-center py-1"):
        ui.label("Headwater").classes("text-lg")
        with ui.tabs().props("dense inline-label shrink").classes("grow") as tabs:
            names = ("Chat", "Documents", "Learning", "River")
            parts = [ui.tab(name) for name in names]
    with ui.tab_panels(tabs, value=parts[0]).classes("w-full").props("keep-alive"):
        with ui.tab_panel(parts[0]):
            Chat(visitor)
        with ui.tab_panel(parts[1]):
            Documents(visitor)
        with ui.tab_panel(parts[2]):
            Learning(visitor, learning)
        with ui.tab_panel(parts[3]):
            River(watch)
