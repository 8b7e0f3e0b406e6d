"""The same SDK for code without an event loop: one loop in one thread, calls wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from schemas.errors import ClientClosed
from schemas.events import Document, Feedback, FoundPassage, Generation, Prompt
from streams.answer import Answer
from streams.assembly import Delta
from streams.client import Client
from streams.producer import Delivered
from streams.settings import KafkaSettings

T = TypeVar("T")


class SyncAnswer:
    """Iterate it for `Delta`s; `finished()` gives the durable record."""

    def __init__(self, client: SyncClient, answer: Answer) -> None:
        self._client = client
        self._answer = answer
        self.prompt_id = answer.prompt_id

    @property
    def text(self) -> str:
        return self._answer.text

    @property
    def passages(self) -> list[FoundPassage]:
        return self._answer.passages

    @property
    def generation(self) -> Generation | None:
        return self._answer.generation

    def __iter__(self) -> Iterator[Delta]:
        return self._client.iterate(self._answer.__aiter__())

    def waits_for(self) -> str:
        return self._client.call(self._answer.waits_for())

    def finished(self) -> Generation:
        return self._client.call(self._answer.finished())

    def cancel(self) -> None:
        self._client.call(self._answer.cancel())


class SyncClient:
    """`with SyncClient() as client: …`; methods and errors are those of `Client`."""

    def __init__(self, settings: KafkaSettings | None = None) -> None:
        self._client = Client(settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> SyncClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="headwater-sync", daemon=True
        )
        self._thread.start()
        try:
            self.call(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call(self._client.__aexit__())
        finally:
            self._stop()

    def publish_document(self, document: Document | str, **fields: Any) -> str:
        return self.call(self._client.publish_document(document, **fields))

    def publish_documents(self, documents: Iterable[Document]) -> int:
        return self.call(self._client.publish_documents(documents))

    def delete_document(self, document_id: str) -> None:
        self.call(self._client.delete_document(document_id))

    def publish_prompt(self, prompt: Prompt) -> str:
        return self.call(self._client.publish_prompt(prompt))

    def ask(self, messages: Any, **options: Any) -> SyncAnswer:
        return SyncAnswer(self, self.call(self._client.ask(messages, **options)))

    def cancel(self, prompt_id: str) -> None:
        self.call(self._client.cancel(prompt_id))

    def feedback(self, feedback: Feedback | None = None, **fields: Any) -> Delivered:
        return self.call(self._client.feedback(feedback, **fields))

    def subscribe(self, topic: str = "generations", **options: Any) -> Iterator[Any]:
        return self.iterate(self._client.subscribe(topic, **options).__aiter__())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the client's loop and wait for the outcome; raises ClientClosed without one."""
        if self._loop is None:
            coroutine.close()
            raise ClientClosed(
                "This client is not open.", "Use it inside of `with SyncClient() as client:`."
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """An asynchronous iterator as a plain one; leaving the loop early closes it."""
        iterator = items.__aiter__()
        try:
            while True:
                try:
                    yield self.call(_next(iterator))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None and self._loop is not None:
                self.call(close())

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()
