"""Which ports of this machine a local Kafka can have."""

from __future__ import annotations

import contextlib
import socket

from infra.kafka_properties import HOST


def is_free(port: int) -> bool:
    """Whether nothing listens at a port, as Kafka sees it: one closed a moment ago is free."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at now, all different."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]
