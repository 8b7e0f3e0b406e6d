"""Asking: the answer as it comes, the passages beside it, and what one thinks of it."""

from __future__ import annotations

from functools import partial
from typing import Final

from nicegui import ui

from agents.gateway.errors import ApiError
from infra.pages.visitor import Visitor, tell
from infra.pages.why import reasons
from schemas.errors import HeadwaterError
from schemas.events import FoundPassage, Generation, Message, Retrieval, Sampling
from streams.answer import Answer

_TOKENS_MAX: Final = 256
_TURNS_KEPT: Final = 12


class Chat:
    """One conversation."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._turns: list[Message] = []
        self._running: Answer | None = None
        # Who closes the page does not want the rest.
        ui.context.client.on_delete(self._cancel)
        with ui.column().classes("w-full max-w-3xl mx-auto gap-2"):
            self._list = ui.column().classes("w-full").props('role="log" aria-live="polite"')
            with ui.row().classes("w-full items-end no-wrap"):
                self._question = (
                    ui.textarea("Ask something", on_change=self._allow)
                    .props("autogrow outlined rows=1 autofocus")
                    .classes("grow")
                )
                # Shift and Enter together make a new line.
                self._question.on("keydown.enter.exact.prevent", self._ask)
                self._send = ui.button(icon="send", on_click=self._ask)
                self._send.props('aria-label="Ask" round').set_enabled(False)
                self._stop = ui.button(icon="stop", on_click=self._cancel)
                self._stop.props('aria-label="Stop" round flat').set_visibility(False)

    def _allow(self) -> None:
        self._send.set_enabled(bool((self._question.value or "").strip()))

    async def _ask(self) -> None:
        question = (self._question.value or "").strip()
        if not question or self._running is not None:
            return
        self._question.value = ""
        self._turns = [*self._turns, Message("user", question)][-_TURNS_KEPT:]
        with self._list:
            ui.chat_message(question, name="You", sent=True).classes("self-end")
            said = ui.label("…").classes("w-full whitespace-pre-wrap break-words")
            said.mark("answer")
        try:
            await self._stream(said)
        except (HeadwaterError, ApiError) as error:
            said.set_text("No answer came.")
            tell(error)
        finally:
            self._running = None
            self._stop.set_visibility(False)

    async def _stream(self, said: ui.label) -> None:
        caller, gateway = self._visitor.caller(), self._visitor.gateway
        with gateway.answering():
            answer = self._running = await gateway.client.ask(
                self._turns,
                sampling=Sampling(max_tokens=_TOKENS_MAX),
                retrieval=Retrieval(top_k=gateway.settings.passages),
                user_id=self._visitor.user_id(caller),
                silence_s_max=gateway.settings.silence_s,
            )
            self._stop.set_visibility(True)
            async for _ in answer:
                said.set_text(answer.text)
            generation = await answer.finished()
        said.set_text(generation.text or "(no text)")
        self._turns.append(Message("assistant", generation.text))
        with self._list:
            _passages(generation)
            _Opinion(self._visitor, generation)

    async def _cancel(self) -> None:
        if self._running is not None:
            await self._running.cancel()


def _passages(generation: Generation) -> None:
    """What was found, those cited first and open."""
    numbered = list(enumerate(generation.passages, start=1))
    numbered.sort(key=lambda item: item[0] not in generation.cited)
    with ui.column().classes("w-full gap-0"):
        for number, passage in numbered:
            cited = number in generation.cited
            mark = " · cited" if cited else ""
            title = f"[{number}] {passage.title or passage.document_id}{mark}"
            with ui.expansion(title, value=cited).classes("w-full"):
                _passage(passage)
    with ui.expansion("Why this answer").classes("w-full text-xs opacity-70"):
        for line in reasons(generation):
            ui.label(line).classes("break-words")
    ui.label(f"version {generation.model_version}").classes("text-xs opacity-70")


def _passage(passage: FoundPassage) -> None:
    ui.label(passage.text).classes("whitespace-pre-wrap break-words")
    ui.label(f"{passage.document_id}, score {passage.score:.2f}").classes("text-xs opacity-70")


class _Opinion:
    """Thumbs, and what it should have said."""

    def __init__(self, visitor: Visitor, generation: Generation) -> None:
        self._visitor = visitor
        self._prompt_id = generation.prompt_id
        with ui.row().classes("w-full items-center") as self._row:
            for icon, said, rating in (("thumb_up", "Good", 1.0), ("thumb_down", "Bad", -1.0)):
                button = ui.button(icon=icon, on_click=partial(self._give, rating, None))
                button.props(f'aria-label="{said} answer" flat round dense')
            self._correction = ui.input("It should have said").props("dense outlined")
            self._correction.classes("grow").on("keydown.enter", self._correct)
            ui.button("Correct", on_click=self._correct).props("flat dense")

    async def _correct(self) -> None:
        if text := (self._correction.value or "").strip():
            await self._give(None, text)

    async def _give(self, rating: float | None, correction: str | None) -> None:
        try:
            caller = self._visitor.caller()
            await self._visitor.gateway.client.feedback(
                prompt_id=self._prompt_id,
                rating=rating,
                correction=correction,
                user_id=self._visitor.user_id(caller),
            )
        except (HeadwaterError, ApiError) as error:
            tell(error)
            return
        ui.notify("Thank you: the model learns from it.", type="positive")
