"""What a generate worker measures, and the page where Prometheus reads an agent's figures."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)

from models.engine.protocol import METRICS_PREFIX
from schemas.errors import SettingsInvalid

_UPDATE_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class UpdateMetrics:
    """How updates of adapters fared."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            f"{METRICS_PREFIX}model_updates_refused",
            "Records of model-updates that cannot be served.",
            registry=self.registry,
        )
        self._applied = Counter(
            f"{METRICS_PREFIX}model_updates_applied",
            "Versions that went live here.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            f"{METRICS_PREFIX}model_update_seconds",
            "From the record of a version to its swap, by the broker's clock and this one's.",
            buckets=_UPDATE_BUCKETS_S,
            registry=self.registry,
        )

    def applied(self, since_ms: int | None) -> None:
        """A version went live; `since_ms` is its record's time, where it was waited for."""
        self._applied.inc()
        if since_ms is not None:
            self._seconds.observe(max(0.0, time.time() - since_ms / 1000))


class MetricsPage:
    """`/metrics` over HTTP, in a thread of its own."""

    def __init__(
        self, host: str, port: int, *registries: CollectorRegistry, agent: str = "GENERATE"
    ) -> None:
        """Serves at once; `agent` is whose settings these are.

        Raises SettingsInvalid for an address that cannot be had.
        """
        together = CollectorRegistry()
        for registry in registries:
            together.register(registry)
        try:
            self._server = _Server((host, port), _handler(together))
        except OSError as error:
            raise SettingsInvalid(
                f"Metrics cannot be served at {host}:{port}: {error.strerror or error}.",
                f"Set HEADWATER_{agent}_METRICS_PORT to a free port and _METRICS_HOST to an "
                "address of this machine; each worker needs a port of its own.",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="headwater-metrics", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        """Ends the thread and frees the port."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """For both kinds of address; a request that hangs keeps nobody from ending."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    """Always the plain text format: in OpenMetrics' the library makes underscores of the colons in
    our names, and Prometheus, which asks for that, would find none of them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = generate_latest(registry)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody wants to read each scrape."""

    return Handler
