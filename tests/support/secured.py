"""A broker with TLS, client certificates, SCRAM logins and access rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority

from infra.kafka_properties import HOST, Security
from infra.local_kafka import LocalKafka
from infra.ports import free_ports
from infra.provision import provision

Config = dict[str, str | int | float | bool]


@dataclass(frozen=True)
class Secured:
    """A node with all its listeners, and whoever signs its clients' certificates."""

    node: LocalKafka
    security: Security
    authority: Authority

    def with_certificate(self, common_name: str) -> Config:
        identity = self.authority.issue(common_name)
        return {
            "bootstrap.servers": f"{HOST}:{self.security.tls_port}",
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.certificate),
            "ssl.certificate.location": str(identity.certificate),
            "ssl.key.location": str(identity.key),
        }

    def with_login(self, user: str, password: str) -> Config:
        return {
            "bootstrap.servers": f"{HOST}:{self.security.scram_port}",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self.authority.certificate),
        }


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    authority = Authority(tmp_path)
    port, controller_port, tls_port, scram_port = free_ports(4)
    security = Security(
        tls_port,
        scram_port,
        key_store=authority.issue("broker").both,
        trust_store=authority.certificate,
        passwords={"writer": "w-secret", "stranger": "s-secret"},
        super_users=("operator",),
    )
    node = LocalKafka(provision(), tmp_path / "kafka", port, controller_port, security)
    node.prepare()
    yield Secured(node, security, authority)
