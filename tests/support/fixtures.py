"""Fixtures that integration, fault and end-to-end tests share: the broker starts once a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from broker import own_river, prepared_broker, running
from gateways import Gateways, gateways
from tiny_model import build_tiny_model
from workers import Workers, agent_parts

from infra.local_kafka import LocalKafka
from infra.supervisor import Supervisor
from streams.settings import KafkaSettings


@dataclass(frozen=True)
class RunningBroker:
    """The node and who keeps it running."""

    node: LocalKafka
    supervisor: Supervisor


@pytest.fixture(scope="session")
def running_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """The broker of the whole run, for those who want to kill it."""
    folder = tmp_path_factory.mktemp("kafka")
    kafka = prepared_broker(folder)
    with running([kafka.part()], folder) as supervisor:
        yield RunningBroker(kafka, supervisor)


@pytest.fixture(scope="session")
def broker(running_broker: RunningBroker) -> LocalKafka:
    """The broker of the whole run."""
    return running_broker.node


@pytest.fixture
def kafka(broker: LocalKafka) -> KafkaSettings:
    """A river of this test's own on the shared broker, without agents."""
    return own_river(broker.address)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 1 MB: real in all but the sense of what it says."""
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def river(broker: LocalKafka) -> KafkaSettings:
    """The river of the shared agents."""
    return own_river(broker.address)


@pytest.fixture(scope="session")
def agents(
    river: KafkaSettings, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    """One worker of each agent on the shared river."""
    folder = tmp_path_factory.mktemp("agents")
    with running(agent_parts(river, tiny_model), folder) as supervisor:
        yield Workers(supervisor, folder)


@pytest.fixture(scope="session")
def gateway(
    river: KafkaSettings, agents: Workers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateways]:
    """One gateway on the shared river."""
    with gateways(river, tmp_path_factory.mktemp("gateway")) as found:
        yield found
