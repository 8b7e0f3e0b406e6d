"""What a gateway measures, under `/metrics`."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PREFIX: Final = "headwater:gateway_"


class GatewayMetrics:
    """Requests by route and status, answers under way, time until an answer begins."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            f"{_PREFIX}requests",
            "Requests, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.open = Gauge(f"{_PREFIX}answers_open", "Answers under way.", registry=self.registry)
        self.seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "From a request to the first byte of its answer.",
            ["route"],
            registry=self.registry,
        )


class Measured:
    """Counts every request, refused ones too."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Only paths that exist: callers must not make up new series.
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began_s)
            await send(message)

        await self._app(scope, receive, counting)
