"""The settings file of the one-node Kafka, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
RECORD_BYTES_MAX = 4 * 1024 * 1024

# One node can hold one replica; a laptop needs few partitions of the internal topics.
_INTERNAL_TOPICS = {
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
}
_GROUPS = {
    # The default waits 3 s for more members, each time that a worker starts.
    "group.initial.rebalance.delay.ms": 0,
    # A killed worker's partitions can go to another one within a second, if the worker asks so.
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.min.heartbeat.interval.ms": 300,
}
_LIMITS = {
    # One node on one machine. The defaults, 3 and 8, hand each request to a thread that has slept:
    # a record took 2.8 ms from producer to consumer, with these 2.1.
    "num.network.threads": 1,
    "num.io.threads": 2,
    "auto.create.topics.enable": "false",
    "message.max.bytes": RECORD_BYTES_MAX,
    "replica.fetch.max.bytes": RECORD_BYTES_MAX,
    # The default of 128 MiB would be a third of the heap.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    # So that a node that was killed is let in again soon after its restart.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    # No empty records twice a second into the log of a quorum of one: they took half of what an
    # idle node takes.
    "metadata.max.idle.interval.ms": 0,
}

LOG_SETTINGS = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True)
class Security:
    """Listeners beside the plain one: TLS with client certificates, and SCRAM over TLS.

    With them every user but `super_users`, and whoever comes through the plain listener, needs
    an access rule for what it does. The user of a client certificate is its common name.
    """

    tls_port: int
    scram_port: int
    key_store: Path  # PEM: the private key (PKCS #8, not encrypted), then its certificates
    trust_store: Path  # PEM: the certificates of whoever signs clients' certificates
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)  # by SCRAM user
    super_users: tuple[str, ...] = ()


def server_properties(
    data_dir: Path, port: int, controller_port: int, security: Security | None = None
) -> str:
    """Write the settings of one node, broker and controller at once, bound to this machine only.

    `data_dir` is where the node keeps its topics.
    """
    listeners = {"PLAIN": port, "CONTROLLER": controller_port}
    protocols = {"PLAIN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    if security is not None:
        listeners |= {"TLS": security.tls_port, "SCRAM": security.scram_port}
        protocols |= {"TLS": "SSL", "SCRAM": "SASL_SSL"}
    addresses = {name: f"{name}://{HOST}:{number}" for name, number in listeners.items()}
    advertised = [address for name, address in addresses.items() if name != "CONTROLLER"]
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": ",".join(addresses.values()),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
        "log.dirs": data_dir.as_posix(),
    }
    settings |= _INTERNAL_TOPICS | _GROUPS | _LIMITS
    if security is not None:
        settings |= _security_settings(security)
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _security_settings(security: Security) -> dict[str, object]:
    users = ("ANONYMOUS", *security.super_users)
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in users),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": security.key_store.as_posix(),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": security.trust_store.as_posix(),
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "listener.name.tls.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
