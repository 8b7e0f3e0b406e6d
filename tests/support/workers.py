"""Agents as real processes, under the real supervisor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from infra.river import agent_part
from infra.supervisor import Supervisor
from streams.settings import KafkaSettings

T = TypeVar("T")


def river_env(kafka: KafkaSettings, model: Path | str) -> dict[str, str]:
    """What an agent's process needs to join a test's river with a small model."""
    return {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "HEADWATER_GENERATE_MODEL": str(model),
        "HEADWATER_GENERATE_THREADS": "1",
        "HEADWATER_GENERATE_CONTEXT_TOKENS_MAX": "2048",
        "HEADWATER_WORKER_SESSION_TIMEOUT_S": "6",
    }


def agent_supervisor(
    kafka: KafkaSettings, model: Path | str, agents: tuple[str, ...], data_dir: Path
) -> Supervisor:
    """A supervisor over one worker of each agent; the broker runs already."""
    env = river_env(kafka, model)
    # The parts of a whole river wait for its topics, which exist here.
    parts = [replace(agent_part(name, env), after=()) for name in agents]
    return Supervisor(parts, data_dir, deaths_max=20)


@dataclass(frozen=True)
class Workers:
    """Agents that run beside the tests; `pids` names their processes."""

    supervisor: Supervisor
    data_dir: Path

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()


@contextmanager
def running_agents(
    kafka: KafkaSettings, model: Path | str, agents: tuple[str, ...], data_dir: Path
) -> Iterator[Workers]:
    """Agents in the background for tests with event loops of their own."""
    started, end = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    supervisor = agent_supervisor(kafka, model, agents, data_dir)

    async def until_end() -> None:
        started.set()
        await asyncio.to_thread(end.wait)

    def supervise() -> None:
        try:
            asyncio.run(supervisor.run(until_end))
        except BaseException as error:
            failures.append(error)
            started.set()

    thread = threading.Thread(target=supervise, name="test-agents")
    thread.start()
    started.wait()
    try:
        if failures:
            raise failures[0]
        yield Workers(supervisor, data_dir)
    finally:
        end.set()
        thread.join()


async def supervised(supervisor: Supervisor, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` while the agents run; what ends the supervisor early is raised."""
    result = await supervisor.run(work)
    assert result is not None
    return result
