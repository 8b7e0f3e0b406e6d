"""How far a document has come, read off the topics when somebody asks."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import BaseModel

from schemas.topics import DOCUMENTS, PASSAGES
from streams.lookup import offset_at
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription


class DocumentState(BaseModel):
    """`retrievable` once its passages are written, which the retrieve agents follow at once.

    Times are Unix milliseconds by the broker's clock. A text without any passage, as an empty one,
    stays `published`.
    """

    document_id: str
    state: Literal["published", "retrievable"]
    published_ms: int | None = None
    passages_ms: int | None = None
    passages: int = 0


async def document_state(kafka: KafkaSettings, document_id: str) -> DocumentState | None:
    """None where there is no such document, or no more. Reads the keys of all documents."""
    key = document_id.encode("utf-8", "replace")
    documents = await _of(Subscription(kafka, DOCUMENTS, since="earliest"), key)
    if not documents or documents[-1].value is None:
        return None
    newest = documents[-1]
    # Passages share their document's partition, and come after it.
    partition, since_ms = newest.partition, newest.timestamp_ms
    start = await asyncio.to_thread(offset_at, kafka, PASSAGES, partition, since_ms)
    resume = f'{{"{partition}": {start}}}'
    passages = Subscription(kafka, PASSAGES, resume=resume, partitions=[partition])
    written = [r for r in await _of(passages, key + b"#", prefix=True) if r.value is not None]
    return DocumentState(
        document_id=document_id,
        state="retrievable" if written else "published",
        published_ms=newest.timestamp_ms,
        passages_ms=max((record.timestamp_ms for record in written), default=None),
        passages=len({record.key for record in written}),
    )


async def _of(subscription: Subscription, key: bytes, *, prefix: bool = False) -> list[Record]:
    """The records of one key, or of those that begin so."""
    async with subscription:
        return [
            record
            async for record in subscription.present()
            if record.key is not None
            and (record.key == key or (prefix and _is_passage(record.key, key)))
        ]


def _is_passage(passage_key: bytes, prefix: bytes) -> bool:
    """An id may hold a # itself: only digits come after that of a passage."""
    return passage_key.startswith(prefix) and passage_key[len(prefix) :].isdigit()
