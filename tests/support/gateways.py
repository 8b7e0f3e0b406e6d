"""Gateways as real processes, with API keys of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker import running

from agents.gateway.access.keys import add_key
from infra.part import Part
from infra.ports import free_ports
from infra.river import agent_part
from infra.supervisor import Supervisor
from streams.settings import KafkaSettings


@dataclass(frozen=True)
class Gateways:
    """Gateways beside the tests; `keys` are secrets by name."""

    supervisor: Supervisor
    ports: Sequence[int]
    keys: dict[str, str]

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"


@contextmanager
def gateways(
    kafka: KafkaSettings, folder: Path, count: int = 1, env: dict[str, str] | None = None
) -> Iterator[Gateways]:
    """Processes that share their keys, named gateway-0 and so on."""
    keys_file = folder / "keys.json"
    keys = {
        "app": add_key(keys_file, "app", ["documents"], 1_000_000),
        "other": add_key(keys_file, "other", []),
        "slow": add_key(keys_file, "slow", [], requests_per_minute=2),
        "poor": add_key(keys_file, "poor", [], tokens_per_day=1),
    }
    ports = free_ports(count)
    shared = {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "HEADWATER_GATEWAY_KEYS_FILE": str(keys_file),
        "HEADWATER_GATEWAY_STREAM_KEY_FILE": str(folder / "stream.key"),
        "HEADWATER_GATEWAY_RESUME_S": "0.2",
        **(env or {}),
    }
    parts: list[Part] = []
    for number, port in enumerate(ports):
        part = agent_part("gateway", shared | {"HEADWATER_GATEWAY_PORT": str(port)})
        parts.append(replace(part, name=f"gateway-{number}", after=()))
    with running(parts, folder) as supervisor:
        yield Gateways(supervisor, ports, keys)
