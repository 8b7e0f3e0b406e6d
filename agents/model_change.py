"""Making a version live by hand: one event. Apart from the history, which needs the ledger."""

from __future__ import annotations

import msgspec

from schemas import codec, headers, ids
from schemas.clock import now_ms
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.producer import Delivered, Outgoing, Producer
from streams.settings import KafkaSettings


async def publish(kafka: KafkaSettings, update: ModelUpdate, source: str) -> Delivered:
    """Make a version live."""
    producer = Producer(kafka)
    try:
        made = headers.make_headers(MODEL_UPDATES, ids.new_id("event"), source)
        value = codec.checked(MODEL_UPDATES, update)
        return await producer.send(Outgoing(MODEL_UPDATES, update.adapter, value, made))
    finally:
        await producer.close()


def made_live(update: ModelUpdate, adapter: str, why: str, *, back: bool) -> ModelUpdate:
    """The event that makes a version live by hand: all that is known of it, and why."""
    return msgspec.structs.replace(
        update,
        adapter=adapter,
        origin="rollback" if back else update.origin,
        published_ms=now_ms(),
        reason=why,
    )
