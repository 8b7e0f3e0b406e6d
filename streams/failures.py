"""From librdkafka's error codes to our error tree: each says the cause and the remedy."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import (
    BrokerUnreachable,
    DeliveryFailed,
    HeadwaterError,
    NotAuthorised,
    RecordTooLarge,
    TopicMissing,
)

_UNREACHABLE: Final = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
}
_MISSING: Final = {
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
_REFUSED: Final = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_TOO_LARGE: Final = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}


def explain(error: KafkaError | KafkaException, bootstrap: str, topic: str = "") -> HeadwaterError:
    """The error of ours that fits, ready to raise."""
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    code, text = cause.code(), cause.str()
    about = f" (topic {topic})" if topic else ""
    if code in _UNREACHABLE:
        return BrokerUnreachable(
            f"No Kafka broker answers at {bootstrap}{about}: {text}.",
            "Start one with `headwater up`, or set HEADWATER_KAFKA_BOOTSTRAP.",
        )
    if code in _MISSING:
        return TopicMissing(
            f"The broker at {bootstrap} has no topic or partition {topic}: {text}.",
            "Create the river's topics with `headwater topics --create`, "
            "or set HEADWATER_KAFKA_TOPIC_PREFIX.",
        )
    if code in _REFUSED:
        return NotAuthorised(
            f"The broker at {bootstrap} refused access{about}: {text}.",
            "Check HEADWATER_KAFKA_SECURITY_PROTOCOL, _USERNAME, _PASSWORD, the certificate files, "
            "and the access rules of this user.",
        )
    if code in _TOO_LARGE:
        return RecordTooLarge(
            f"A record is larger than the broker takes{about}: {text}.",
            "Split it, or raise max.message.bytes of the topic.",
        )
    return DeliveryFailed(f"Kafka at {bootstrap} failed{about}: {text}.", "See the broker's log.")
