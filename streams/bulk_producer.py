"""Many records to one topic as fast as the broker takes them; only failures are reported singly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from schemas.headers import Headers
from schemas.topics import Topic
from streams.failures import explain
from streams.producer import producer_config
from streams.settings import KafkaSettings

_LINGER_MS: Final = 5.0
_QUEUE_FULL_WAIT_S: Final = 0.005
# Few enough to stay in the processor's caches: see docs/LOG.md.
_RECORDS_QUEUED_MAX: Final = 10_000
_RECORDS_BETWEEN_POLLS: Final = 1_000


class BulkProducer:
    """Blocking; for one thread at a time.

    A callback for each record costs as much as sending it. librdkafka counts what is in flight and
    reports failures alone, which is all that "everything was acknowledged" needs.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._failures: list[KafkaError] = []
        config = producer_config(settings, _LINGER_MS) | {
            "queue.buffering.max.messages": _RECORDS_QUEUED_MAX,
            "delivery.report.only.error": True,
            "on_delivery": self._failed,
        }
        self._producer = confluent_kafka.Producer(config)

    def send_all(self, topic: Topic, records: Iterable[tuple[str, bytes, Headers]]) -> int:
        """Send (key, value, headers) triples; returns their number once the broker has them all.

        Raises as `explain` for the first that failed, after the others have settled.
        """
        name = self._settings.topic_name(topic)
        produce, poll = self._producer.produce, self._producer.poll
        self._failures.clear()
        count = 0
        try:
            for count, (key, value, made_headers) in enumerate(records, 1):
                while True:
                    try:
                        # By position: matching names costs a tenth of the rate.
                        produce(name, value, key, -1, None, None, 0, made_headers)  # type: ignore[arg-type]
                        break
                    except BufferError:
                        poll(_QUEUE_FULL_WAIT_S)
                if not count % _RECORDS_BETWEEN_POLLS:
                    poll(0)
        except KafkaException as error:
            raise explain(error, self._settings.bootstrap, name) from error
        finally:
            self._producer.flush()
        if self._failures:
            raise explain(self._failures[0], self._settings.bootstrap, name)
        return count

    def _failed(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)
