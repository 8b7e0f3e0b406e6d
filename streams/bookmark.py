"""Where a named subscriber stopped, kept in Kafka as the committed offsets of a group."""

from __future__ import annotations

from typing import Literal

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition

from schemas.topics import Topic
from streams.failures import explain
from streams.follower import consumer_config
from streams.settings import KafkaSettings


class Bookmark:
    """Loads and saves positions under a name; never joins the group. Blocking calls."""

    def __init__(self, settings: KafkaSettings, topic: Topic, name: str) -> None:
        self._settings = settings
        self._topic_name = settings.topic_name(topic)
        group = settings.group_name(f"subscriber.{name}")
        self._consumer = confluent_kafka.Consumer(consumer_config(settings, group))

    def load(self, since: Literal["earliest", "latest"]) -> dict[int, int]:
        """The next offset of each partition; for those never read, which end to start at."""
        unread = OFFSET_BEGINNING if since == "earliest" else OFFSET_END
        timeout_s = self._settings.connect_timeout_s
        try:
            topics = self._consumer.list_topics(self._topic_name, timeout=timeout_s).topics
            places = [
                TopicPartition(self._topic_name, p) for p in topics[self._topic_name].partitions
            ]
            found = self._consumer.committed(places, timeout=timeout_s)
        except KafkaException as error:
            raise explain(error, self._settings.bootstrap, self._topic_name) from error
        return {place.partition: place.offset if place.offset >= 0 else unread for place in found}

    def save(self, positions: dict[int, int]) -> None:
        """Commit the next offset of each partition."""
        places = [TopicPartition(self._topic_name, p, o) for p, o in positions.items()]
        if not places:
            return
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise explain(error, self._settings.bootstrap, self._topic_name) from error

    def close(self) -> None:
        self._consumer.close()
