"""What all requests of a gateway share: one client, the keys, the limits, the open streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from agents.gateway.access.keys import Keys
from agents.gateway.access.limits import RateLimits
from agents.gateway.access.quotas import Quotas
from agents.gateway.departures import Departures
from agents.gateway.errors import ApiError
from agents.gateway.metrics import GatewayMetrics
from agents.gateway.openai.event_stream import Pings
from agents.gateway.openai.positions import open_stream_secret
from agents.gateway.settings import GatewaySettings
from agents.gateway.vectors import Vectors
from agents.runtime.tracing import make_tracing
from agents.settings import EmbedderSettings
from streams.client import Client
from streams.settings import KafkaSettings

log = logging.getLogger("headwater.gateway")


class Gateway:
    """The state of one gateway process. One reply partition and one producer serve all streams."""

    def __init__(
        self, kafka: KafkaSettings, settings: GatewaySettings, embedder: EmbedderSettings
    ) -> None:
        """Raises SettingsInvalid for files of keys that cannot be used."""
        self.kafka = kafka
        self.settings = settings
        self.departures = Departures(settings.resume_s, self.cancel)
        self._tracing = make_tracing("gateway")
        self.client = Client(
            kafka,
            source="/gateway",
            on_resumed=self.departures.resumed,
            tracer=self._tracing.tracer,
        )
        self.keys = Keys(settings.keys_file.expanduser())
        self.limits = RateLimits()
        self.quotas = Quotas(kafka)
        self.secret = open_stream_secret(settings)
        self.pings = Pings(settings.ping_s)
        self.vectors = Vectors(embedder)
        self.metrics = GatewayMetrics()
        self._open = 0
        self._cancels: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect; raises as `Client.__aenter__`."""
        await self.client.__aenter__()
        await self.client.check()

    async def close(self) -> None:
        """Cancel what callers left behind, then leave the broker."""
        self.departures.close()
        await asyncio.gather(*self._cancels, return_exceptions=True)
        await self.quotas.close()
        self.vectors.close()
        await self.client.__aexit__()
        await self._tracing.close()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts an answer under way; raises ApiError (503) where there are too many."""
        if self._open >= self.settings.requests_open_max:
            raise ApiError(
                503,
                f"{self._open} answers are under way here. Try again soon.",
                "overloaded",
                headers={"Retry-After": "1"},
            )
        self._open += 1
        self.metrics.open.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            self.metrics.open.set(self._open)

    def cancel(self, prompt_id: str) -> None:
        """Stop an answer that nobody reads, soon."""
        task = asyncio.create_task(self.client.cancel(prompt_id), name="headwater-cancel")
        self._cancels.add(task)
        task.add_done_callback(self._cancelled)

    def _cancelled(self, task: asyncio.Task[None]) -> None:
        self._cancels.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("an answer that nobody reads could not be cancelled: %s", error)
