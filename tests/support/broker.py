"""A real Kafka for a test run, and names of its own for each test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from infra.local_kafka import LocalKafka
from infra.part import Part
from infra.ports import free_ports
from infra.provision import provision
from infra.supervisor import Supervisor
from streams.admin import create_topics
from streams.settings import KafkaSettings


@contextmanager
def running(parts: Sequence[Part], data_dir: Path) -> Iterator[Supervisor]:
    """Supervised processes beside tests that have event loops of their own.

    The supervisor's lifeline ends them even when the test run itself is killed.
    """
    started, end = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    supervisor = Supervisor(parts, data_dir, deaths_max=20)

    async def until_end() -> None:
        started.set()
        await asyncio.to_thread(end.wait)

    def supervise() -> None:
        try:
            asyncio.run(supervisor.run(until_end))
        except BaseException as error:
            failures.append(error)
            started.set()

    thread = threading.Thread(target=supervise, name="test-supervisor")
    thread.start()
    started.wait()
    try:
        if failures:
            raise failures[0]
        yield supervisor
    finally:
        end.set()
        thread.join()


def prepared_broker(data_dir: Path) -> LocalKafka:
    """A node on free ports, ready to be started."""
    kafka = LocalKafka(provision(), data_dir, *free_ports(2))
    kafka.prepare()
    return kafka


def own_river(bootstrap: str) -> KafkaSettings:
    """Settings with a topic prefix that nobody else has; its topics exist."""
    kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=f"test-{uuid4().hex[:8]}.")
    create_topics(kafka)
    return kafka
