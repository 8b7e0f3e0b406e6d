"""Making a version live, by hand or by a rule: one event. Apart from the history, which needs the
ledger."""

from __future__ import annotations

import msgspec

from models.engine.protocol import BASE_VERSION
from schemas import codec, headers, ids
from schemas.clock import now_ms
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.producer import Delivered, Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings


async def publish(kafka: KafkaSettings, update: ModelUpdate, source: str) -> Delivered:
    """Make a version live."""
    producer = Producer(kafka)
    try:
        return await producer.send(change_record(update, ids.new_id("event"), source))
    finally:
        await producer.close()


def change_record(update: ModelUpdate, event_id: str, source: str) -> Outgoing:
    """The record that makes a version live."""
    made = headers.make_headers(MODEL_UPDATES, event_id, source)
    return Outgoing(MODEL_UPDATES, update.adapter, codec.checked(MODEL_UPDATES, update), made)


def read_update(record: Record) -> ModelUpdate:
    """What a record of `model-updates` says; a tombstone makes the base model live.

    Raises EventInvalid.
    """
    if record.value is None:
        return ModelUpdate(record.key_text or "", BASE_VERSION, "base", record.timestamp_ms)
    update: ModelUpdate = codec.decode(MODEL_UPDATES, record.value)
    return update


def made_live(update: ModelUpdate, adapter: str, why: str, *, back: bool) -> ModelUpdate:
    """The event that makes a version live: all that is known of it, and why."""
    return msgspec.structs.replace(
        update,
        adapter=adapter,
        origin="rollback" if back else update.origin,
        published_ms=now_ms(),
        reason=why,
    )
