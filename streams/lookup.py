"""Finding single records and offsets. Blocking calls; each opens a consumer of its own."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

from schemas.errors import DeliveryFailed
from schemas.topics import Topic
from streams.failures import explain
from streams.follower import consumer_config
from streams.records import Record, from_message
from streams.settings import KafkaSettings
from streams.watermarks import watermarks


def offset_at(settings: KafkaSettings, topic: Topic, partition: int, time_ms: int) -> int:
    """The first offset whose record the broker took at `time_ms` or later; the end if none."""
    name = settings.topic_name(topic)
    with _consumer(settings, name) as consumer:
        timeout_s = settings.connect_timeout_s
        place = TopicPartition(name, partition, max(time_ms, 0))
        (found,) = consumer.offsets_for_times([place], timeout=timeout_s)
        if found.offset >= 0:
            return int(found.offset)
        _, end = watermarks(consumer, TopicPartition(name, partition), timeout_s)
        return end


def committed_offsets(
    settings: KafkaSettings, topic: Topic, group: str, partitions: Collection[int]
) -> dict[int, int]:
    """Where a consumer group goes on; partitions that it never committed are left out."""
    name = settings.topic_name(topic)
    with _consumer(settings, name, group) as consumer:
        places = [TopicPartition(name, partition) for partition in partitions]
        found = consumer.committed(places, timeout=settings.connect_timeout_s) if places else []
        return {place.partition: place.offset for place in found if place.offset >= 0}


def read_at(settings: KafkaSettings, topic: Topic, partition: int, offset: int) -> Record:
    """The record at an offset, or the next one kept after it; raises as `explain`."""
    name = settings.topic_name(topic)
    with _consumer(settings, name) as consumer:
        consumer.assign([TopicPartition(name, partition, offset)])
        deadline = time.monotonic() + settings.connect_timeout_s
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                return from_message(message)
    raise DeliveryFailed(
        f"No record came from {name}/{partition}@{offset}.", "Is the broker overloaded or down?"
    )


@contextmanager
def _consumer(
    settings: KafkaSettings, name: str, group: str = "lookup"
) -> Iterator[confluent_kafka.Consumer]:
    consumer = confluent_kafka.Consumer(consumer_config(settings, settings.group_name(group)))
    try:
        yield consumer
    except KafkaException as error:
        raise explain(error, settings.bootstrap, name) from error
    finally:
        consumer.close()
