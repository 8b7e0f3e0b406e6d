"""TLS, client certificates, SCRAM logins and access rules, against the real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic
from secured import Config, Secured, secured

from infra.supervisor import Supervisor

pytestmark = pytest.mark.integration
TIMEOUT_S = 10
__all__ = ["secured"]


def delivery_error(config: Config, topic: str) -> int | None:
    """Publish a record; gives the code of the error of its delivery."""
    errors: list[KafkaError | None] = []
    producer = Producer({**config, "message.timeout.ms": 4000, "log_level": 0})
    producer.produce(topic, b"a fact", on_delivery=lambda error, _record: errors.append(error))
    producer.flush(TIMEOUT_S)
    return errors[0].code() if errors[0] else None


def connection_refused(config: Config) -> bool:
    try:
        AdminClient({**config, "log_level": 0}).list_topics(timeout=4)
    except KafkaException:
        return True
    return False


def allow_writing(admin: AdminClient, user: str, topic: str) -> None:
    rule = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    admin.create_acls([rule])[rule].result(TIMEOUT_S)


def check(secured: Secured) -> None:
    """Go through every way in, with and without the right to it."""
    # An operator that shows a certificate may do everything.
    admin = AdminClient(secured.with_certificate("operator"))
    admin.create_topics([NewTopic("facts", 1)])["facts"].result(TIMEOUT_S)
    for user in ("writer", "device"):
        allow_writing(admin, user, "facts")
    assert delivery_error(secured.with_login("writer", "w-secret"), "facts") is None
    assert delivery_error(secured.with_certificate("device"), "facts") is None
    # Known, but without a rule.
    denied = delivery_error(secured.with_login("stranger", "s-secret"), "facts")
    assert denied == KafkaError.TOPIC_AUTHORIZATION_FAILED
    # Unknown.
    assert connection_refused(secured.with_login("writer", "wrong"))
    without_certificate = secured.with_certificate("operator")
    del without_certificate["ssl.certificate.location"], without_certificate["ssl.key.location"]
    assert connection_refused(without_certificate)


@pytest.mark.asyncio
async def test_every_way_in_takes_whom_it_should(secured: Secured, tmp_path: Path) -> None:
    supervisor = Supervisor([secured.node.part()], tmp_path)
    await supervisor.run(lambda: asyncio.to_thread(check, secured))
