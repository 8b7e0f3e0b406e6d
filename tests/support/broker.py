"""A real Kafka for a test run, and names of its own for each test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ports import free_ports

from infra.local_kafka import LocalKafka
from infra.provision import provision
from streams.admin import create_topics
from streams.settings import KafkaSettings

READY_S_MAX = 60.0
STOP_S_MAX = 20.0


@contextmanager
def running_broker(data_dir: Path) -> Iterator[LocalKafka]:
    """One node, started once and stopped at the end."""
    kafka = LocalKafka(provision(), data_dir, *free_ports(2))
    kafka.prepare()
    with (data_dir / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            kafka.command(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            asyncio.run(kafka.wait_ready(READY_S_MAX))
            yield kafka
        finally:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def own_river(bootstrap: str) -> KafkaSettings:
    """Settings with a topic prefix that nobody else has; its topics exist."""
    kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=f"test-{uuid4().hex[:8]}.")
    create_topics(kafka)
    return kafka
