"""Running a gateway as a process: socket, server, readiness, an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from agents.gateway.access.bodies import LOOPBACK
from agents.gateway.app import make_app
from agents.gateway.settings import GatewaySettings
from agents.gateway.state import Gateway
from agents.runtime.standalone import run
from agents.settings import EmbedderSettings, WorkerSettings
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load

_BACKLOG: Final = 1024
# Longer than clients and proxies keep idle connections: a request must not meet a closing one.
_KEEP_ALIVE_S: Final = 75


class _Server(uvicorn.Server):
    """Says when it answers, and when it begins to end."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event, gateway: Gateway) -> None:
        super().__init__(config)
        self._ready = ready
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams that break now are resumed elsewhere.
        self._gateway.departures.ending = True
        await super().shutdown(sockets)


class GatewayWorker:
    """One gateway process; `extend` adds to the app, such as the live page."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: GatewaySettings,
        embedder: EmbedderSettings,
        extend: Callable[[FastAPI, Gateway], None] | None = None,
    ) -> None:
        """Raises SettingsInvalid for an address that cannot be had, or must not without keys."""
        self._gateway = Gateway(kafka, settings, embedder)
        self._settings = settings
        self._extend = extend
        if settings.host not in LOOPBACK and not self._gateway.keys.required:
            raise SettingsInvalid(
                f"{settings.host} can be reached by others, and there are no API keys.",
                "Run `headwater keys add NAME` first.",
            )
        self._socket = _listen(settings.host, settings.port)
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Serve until the process is told to stop."""
        await self._gateway.open()
        app = make_app(self._gateway)
        if self._extend is not None:
            self._extend(app, self._gateway)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=self._settings.stop_s,
        )
        server = _Server(config, self.ready, self._gateway)
        serving = asyncio.create_task(server.serve([self._socket]), name="headwater-http")
        pinging = asyncio.create_task(self._gateway.pings.run(), name="headwater-pings")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            # Told to stop: open requests have their time.
            server.should_exit = True
            await serving
            raise
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    async def close(self) -> None:
        """Leave the broker."""
        self._socket.close()
        await self._gateway.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsInvalid(
            f"The gateway cannot listen at {host}:{port}: {error.strerror or error}.",
            "Set HEADWATER_GATEWAY_PORT to a free port and HEADWATER_GATEWAY_HOST to an address "
            "of this machine.",
        ) from error


def main(extend: Callable[[FastAPI, Gateway], None] | None = None) -> None:
    """Run one gateway until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(GatewaySettings)
    gateway = GatewayWorker(kafka, settings, load(EmbedderSettings), extend)
    run(worker, gateway.work, gateway.ready.wait, gateway.close)
