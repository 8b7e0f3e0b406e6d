"""Creating and describing the river's topics: explicit, never by auto-creation."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.errors import BrokerUnreachable
from schemas.topics import INTERNAL_TOPICS, TOPICS, Topic
from streams.failures import explain
from streams.follower import consumer_config
from streams.settings import KafkaSettings
from streams.watermarks import watermarks

_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it; `records` counts offsets from first to last kept."""

    name: str
    exists: bool
    partitions: int
    records: int


def check_connection(settings: KafkaSettings) -> None:
    """Raise BrokerUnreachable or NotAuthorised where the broker cannot be used."""
    _known_topics(settings)


def create_topics(settings: KafkaSettings, replication: int = -1) -> list[str]:
    """Create the topics that are missing and return their names; -1 takes the broker's default.

    The broker that answers knows them then: it may learn of them a moment after they are made.
    """
    known = _known_topics(settings)
    wanted = (*TOPICS, *INTERNAL_TOPICS)
    missing = [topic for topic in wanted if settings.topic_name(topic) not in known]
    if not missing:
        return []
    admin = AdminClient(settings.client_config())
    futures = admin.create_topics(
        [_new_topic(settings, topic, replication) for topic in missing],
        operation_timeout=_TIMEOUT_S,
    )
    created = []
    for name, future in futures.items():
        try:
            future.result(_TIMEOUT_S)
            created.append(name)
        except KafkaException as error:
            # Two processes may create at once; the one that comes second has what it wanted.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise explain(error, settings.bootstrap, name) from error
    _wait_until_known(settings, futures)
    return created


def describe_topics(settings: KafkaSettings, topics: Sequence[Topic] = TOPICS) -> list[TopicState]:
    """Partitions and record counts of each declared topic."""
    known = _known_topics(settings)
    consumer = confluent_kafka.Consumer(consumer_config(settings, settings.group_name("admin")))
    try:
        return [_state(settings, consumer, known, topic) for topic in topics]
    except KafkaException as error:
        raise explain(error, settings.bootstrap) from error
    finally:
        consumer.close()


def partition_count(settings: KafkaSettings, topic: Topic) -> int:
    """How many partitions the broker has for a topic; raises TopicMissing."""
    name = settings.topic_name(topic)
    known = _known_topics(settings)
    if name not in known:
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        raise explain(error, settings.bootstrap, name)
    return known[name]


def _wait_until_known(settings: KafkaSettings, names: Collection[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not _known_topics(settings).keys() >= set(names):
        if time.monotonic() > deadline:
            raise BrokerUnreachable(
                f"The broker at {settings.bootstrap} does not show the topics it has created.",
                "Try again; if that does not help, look at the broker's log.",
            )
        time.sleep(_LOOK_S)


def _known_topics(settings: KafkaSettings) -> dict[str, int]:
    # A broken login shows only as "timed out"; the error callback knows what it really was.
    reasons: list[KafkaError] = []
    admin = AdminClient(settings.client_config() | {"error_cb": reasons.append})
    try:
        metadata = admin.list_topics(timeout=settings.connect_timeout_s)
    except KafkaException as error:
        admin.poll(0)
        cause = next((r for r in reasons if r.code() in _LOGIN_FAILURES), None)
        raise explain(cause or error, settings.bootstrap) from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def _new_topic(settings: KafkaSettings, topic: Topic, replication: int) -> NewTopic:
    config = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(topic.batch_bytes_max),
        # The broker's clock orders records of different writers and bounds the life of each.
        "message.timestamp.type": "LogAppendTime",
    }
    if topic.history_ms:
        config["min.compaction.lag.ms"] = str(topic.history_ms)
    if topic.retention_ms is not None:
        config["retention.ms"] = str(topic.retention_ms)
    return NewTopic(
        settings.topic_name(topic),
        num_partitions=topic.partitions,
        replication_factor=replication,
        config=config,
    )


def _state(
    settings: KafkaSettings,
    consumer: confluent_kafka.Consumer,
    known: dict[str, int],
    topic: Topic,
) -> TopicState:
    name = settings.topic_name(topic)
    partitions = known.get(name, 0)
    records = 0
    for partition in range(partitions):
        where = TopicPartition(name, partition)
        low, high = watermarks(consumer, where, settings.connect_timeout_s)
        records += high - low
    return TopicState(name, name in known, partitions, records)


_LOGIN_FAILURES: Final = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
}
