"""The first and the next offset of a partition."""

from __future__ import annotations

import time
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

_RETRY_WAIT_S: Final = 0.1
_NO_LEADER_YET: Final = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


def watermarks(
    consumer: confluent_kafka.Consumer, place: TopicPartition, timeout_s: float
) -> tuple[int, int]:
    """First offset kept and next offset to be written.

    Asks again while the partition has no leader yet, as just after its creation. Raises
    KafkaException.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=timeout_s)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_WAIT_S)
