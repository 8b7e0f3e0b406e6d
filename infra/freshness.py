"""Waiting for documents to become retrievable, as the retrieve agents report it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from schemas.errors import AnswerTimeout
from schemas.events import DOCUMENT_FRESHNESS, Document, Statistic
from streams.client import Client
from streams.subscription import Subscription

# Documents on their way at once: enough to fill the ingest agent's batches, no more.
_ON_THEIR_WAY_MAX: Final = 32


class Freshness:
    """Collects `document_freshness` from `analytics`; open it before publishing."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._subscription: Subscription = client.subscribe("analytics")
        self._fresh_ms: dict[str, float] = {}
        self._news = asyncio.Condition()

    async def open(self) -> None:
        """From now on nothing is missed."""
        await self._subscription.open()
        self._task = asyncio.create_task(self._collect(), name="headwater-freshness")

    async def of(
        self, document_ids: Sequence[str], silence_s_max: float = 60.0
    ) -> AsyncIterator[tuple[str, float]]:
        """Each document with its freshness in ms, in the order given.

        Raises AnswerTimeout when none becomes retrievable for `silence_s_max`.
        """
        for document_id in document_ids:
            async with self._news:
                while document_id not in self._fresh_ms:
                    try:
                        await asyncio.wait_for(self._news.wait(), silence_s_max)
                    except TimeoutError:
                        raise AnswerTimeout(
                            f"{document_id} has not become retrievable.",
                            "Are the ingest and retrieve agents running? An empty document has "
                            "nothing to retrieve; `headwater dead-letters list` shows the refused.",
                        ) from None
            yield document_id, self._fresh_ms[document_id]

    async def publish(self, documents: Sequence[Document]) -> AsyncIterator[float]:
        """Publish with a bounded number on their way; yields each document's freshness in ms."""
        sent = min(_ON_THEIR_WAY_MAX, len(documents))
        await self._client.publish_documents(documents[:sent])
        async for _, fresh_ms in self.of([document.document_id or "" for document in documents]):
            yield fresh_ms
            if sent < len(documents):
                await self._client.publish_document(documents[sent])
                sent += 1

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._subscription.close()

    async def _collect(self) -> None:
        async for statistic in self._subscription:
            assert isinstance(statistic, Statistic)
            if statistic.name == DOCUMENT_FRESHNESS:
                async with self._news:
                    document_id = statistic.labels.get("document_id", "")
                    self._fresh_ms[document_id] = statistic.values["freshness_ms"]
                    self._news.notify_all()
