"""The local Kafka node, under the supervisor: what it keeps, refuses and says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.local_kafka import LocalKafka, remedy_for
from infra.ports import free_ports
from infra.provision import KafkaDistribution, provision
from infra.supervisor import Notice, Supervisor
from schemas.errors import WorkerFailed

pytestmark = pytest.mark.integration
TIMEOUT_S = 20


@pytest.fixture(scope="module")
def distribution() -> KafkaDistribution:
    return provision()


@pytest.fixture
def kafka(distribution: KafkaDistribution, tmp_path: Path) -> Iterator[LocalKafka]:
    """Give a node that is prepared but does not run."""
    port, controller_port = free_ports(2)
    node = LocalKafka(distribution, tmp_path / "kafka", port, controller_port)
    node.prepare()
    yield node


def create(node: LocalKafka, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": node.address})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(TIMEOUT_S)


def publish(node: LocalKafka, topic: str, value: bytes) -> KafkaError | None:
    """Publish one record; gives the error of its delivery."""
    errors: list[KafkaError | None] = []
    limits = {"message.max.bytes": 10_000_000, "message.timeout.ms": 5000}
    producer = Producer({"bootstrap.servers": node.address, "acks": "all", **limits})
    producer.produce(topic, value, on_delivery=lambda error, _record: errors.append(error))
    producer.flush(TIMEOUT_S)
    return errors[0]


def first_value(node: LocalKafka, topic: str) -> bytes | None:
    """Read the first record of partition 0."""
    consumer = Consumer({"bootstrap.servers": node.address, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    record = consumer.poll(TIMEOUT_S)
    consumer.close()
    return record.value() if record and not record.error() else None


def listening_addresses(pid: int) -> set[str]:
    connections = psutil.Process(pid).net_connections("tcp")
    listening = [found for found in connections if found.status == psutil.CONN_LISTEN]
    return {found.laddr.ip.removeprefix("::ffff:") for found in listening}


@pytest.mark.asyncio
@pytest.mark.long
async def test_records_outlive_a_stop_and_a_kill(kafka: LocalKafka, tmp_path: Path) -> None:
    notices: list[Notice] = []
    supervisor = Supervisor([kafka.part()], tmp_path, notices.append)

    async def fill_and_kill() -> bytes | None:
        await asyncio.to_thread(create, kafka, "kept")
        assert await asyncio.to_thread(publish, kafka, "kept", b"a fact") is None
        os.kill(supervisor.pids()["kafka"], signal.SIGKILL)
        async with asyncio.timeout(TIMEOUT_S):
            while [notice.what for notice in notices].count("ready") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return await asyncio.to_thread(first_value, kafka, "kept")

    assert await supervisor.run(fill_and_kill) == b"a fact"
    kafka.prepare()
    again = Supervisor([kafka.part()], tmp_path)
    assert await again.run(lambda: asyncio.to_thread(first_value, kafka, "kept")) == b"a fact"


@pytest.mark.asyncio
async def test_it_serves_this_machine_only_and_only_declared_topics(
    kafka: LocalKafka, tmp_path: Path
) -> None:
    supervisor = Supervisor([kafka.part()], tmp_path)

    async def look() -> None:
        assert listening_addresses(supervisor.pids()["kafka"]) == {"127.0.0.1"}
        refused = await asyncio.to_thread(publish, kafka, "undeclared", b"lost")
        assert refused is not None
        await asyncio.to_thread(create, kafka, "declared")
        assert await asyncio.to_thread(publish, kafka, "declared", b"x" * 4_000_000) is None
        refused = await asyncio.to_thread(publish, kafka, "declared", b"x" * 5_000_000)
        assert refused is not None
        assert refused.code() == KafkaError.MSG_SIZE_TOO_LARGE

    await supervisor.run(look)


@pytest.mark.asyncio
async def test_a_port_in_use_is_said_with_its_remedy(kafka: LocalKafka, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", kafka.port)),
        pytest.raises(WorkerFailed, match="Address already in use") as caught,
    ):
        await Supervisor([kafka.part()], tmp_path).run(asyncio.Event().wait)
    assert "HEADWATER_KAFKA_PORT" in caught.value.remedy


@pytest.mark.asyncio
async def test_a_damaged_data_folder_is_said_with_its_remedy(
    kafka: LocalKafka, tmp_path: Path
) -> None:
    (kafka.data_dir / "topics" / "meta.properties").write_text("version=1\n", "utf-8")
    with pytest.raises(WorkerFailed, match="before it was ready") as caught:
        await Supervisor([kafka.part()], tmp_path).run(asyncio.Event().wait)
    assert "damaged" in caught.value.remedy


def test_a_folder_that_cannot_hold_topics_fails_at_once(
    distribution: KafkaDistribution, tmp_path: Path
) -> None:
    (tmp_path / "topics").write_text("in the way", "utf-8")
    port, controller_port = free_ports(2)
    with pytest.raises(WorkerFailed, match="could not be formatted"):
        LocalKafka(distribution, tmp_path, port, controller_port).prepare()


def test_a_full_disk_is_known_by_its_sign() -> None:
    assert "free some space" in remedy_for("java.io.IOException: No space left on device")


def test_a_cluster_id_that_looks_like_an_option_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One random id in 64 begins with a dash."""
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(bytes=b"\xf8" + b"\x01" * 15))
    LocalKafka(provision(), tmp_path, *free_ports(2)).prepare()
    assert "cluster.id=-AEB" in (tmp_path / "topics" / "meta.properties").read_text()
