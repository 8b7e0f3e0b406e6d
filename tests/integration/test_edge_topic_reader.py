"""A device's reader on a real broker: what comes on the topic is in the store, and stays once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import confluent_kafka
import pytest
from broker import own_river

from agents.edge.store import ExampleStore
from agents.edge.topic_reader import follow
from infra.local_kafka import LocalKafka
from schemas.topics import ANALYTICS
from streams.settings import KafkaSettings

pytestmark = pytest.mark.integration


def publish(kafka: KafkaSettings, topic: str, *values: bytes) -> None:
    """As any Kafka client of the owner's does."""
    producer = confluent_kafka.Producer(kafka.client_config())
    for value in values:
        producer.produce(topic, value)
    producer.flush(10)


async def until_kept(kafka: KafkaSettings, topic: str, store: ExampleStore, count: int) -> None:
    reading = asyncio.create_task(follow(kafka, topic, store))
    try:
        async with asyncio.timeout(20):
            while store.count() < count and not reading.done():  # noqa: ASYNC110 - a database.
                await asyncio.sleep(0.05)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


@pytest.mark.asyncio
async def test_examples_come_while_reading_and_after_a_restart(
    broker: LocalKafka, tmp_path: Path
) -> None:
    kafka = own_river(broker.address)
    # Any topic will do: nothing of ours decodes it.
    topic = kafka.topic_name(ANALYTICS)
    store = ExampleStore(tmp_path)
    publish(kafka, topic, b'{"prompt": "Deep?", "answer": "Nine metres."}', b"no example")
    await until_kept(kafka, topic, store, 1)
    publish(kafka, topic, b'{"prompt": "Wide?", "answer": "Forty metres."}')
    await until_kept(kafka, topic, store, 2)
    assert {one.correction for one in store.examples()} == {"Nine metres.", "Forty metres."}
    assert sum(store.positions(topic).values()) == 3
    store.close()
