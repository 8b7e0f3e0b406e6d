"""librdkafka's errors in our words: the cause, then what the reader can do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas import errors
from streams.failures import explain


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (KafkaError._TRANSPORT, errors.BrokerUnreachable, "HEADWATER_KAFKA_BOOTSTRAP"),
        (KafkaError._ALL_BROKERS_DOWN, errors.BrokerUnreachable, "headwater up"),
        (KafkaError._MSG_TIMED_OUT, errors.BrokerUnreachable, "headwater up"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, errors.TopicMissing, "headwater topics --create"),
        (KafkaError._UNKNOWN_PARTITION, errors.TopicMissing, "headwater topics --create"),
        (KafkaError._AUTHENTICATION, errors.NotAuthorised, "_PASSWORD"),
        (KafkaError._SSL, errors.NotAuthorised, "certificate"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, errors.NotAuthorised, "access rules"),
        (KafkaError.MSG_SIZE_TOO_LARGE, errors.RecordTooLarge, "max.message.bytes"),
        (KafkaError.INVALID_MSG, errors.DeliveryFailed, "broker's log"),
    ],
)
def test_each_cause_has_its_error_and_its_remedy(
    code: int, kind: type[errors.HeadwaterError], remedy: str
) -> None:
    cause = KafkaError(code)
    for error in (cause, KafkaException(cause)):
        found = explain(error, "broker:9092", "headwater.prompts")
        assert type(found) is kind
        assert "headwater.prompts" in found.message
        assert cause.str() in found.message
        assert remedy in found.remedy


def test_an_error_reads_as_cause_then_remedy() -> None:
    assert str(errors.EventInvalid("No text.", "Add one.")) == "No text. Add one."
    assert str(errors.EventInvalid("No text.")) == "No text."


def test_every_error_of_ours_is_a_headwater_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.HeadwaterError) for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)
