"""Agents as real processes, under the real supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra.part import Part
from infra.river import ANSWERING, agent_part
from infra.supervisor import Supervisor
from streams.settings import KafkaSettings


@dataclass(frozen=True)
class Workers:
    """Agents that run beside the tests."""

    supervisor: Supervisor
    data_dir: Path

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def agent_parts(
    kafka: KafkaSettings, model: Path | str, agents: Sequence[str] = ANSWERING
) -> list[Part]:
    """One worker of each agent for a river whose broker and topics are there already."""
    env = {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "HEADWATER_GENERATE_MODEL": str(model),
        "HEADWATER_GENERATE_THREADS": "1",
        "HEADWATER_WORKER_SESSION_TIMEOUT_S": "6",
    }
    return [replace(agent_part(name, env), after=()) for name in agents]
