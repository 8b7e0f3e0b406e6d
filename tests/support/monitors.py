"""A monitor in the test's own process, on a real broker."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agents.monitor.agent import Monitor
from agents.monitor.settings import MonitorSettings
from infra.ports import free_ports
from schemas import codec, headers, ids
from schemas.events import Statistic
from schemas.topics import ANALYTICS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings


@asynccontextmanager
async def monitoring(kafka: KafkaSettings, **settings: object) -> AsyncIterator[str]:
    """The address of the metrics of a monitor that is ready."""
    (port,) = free_ports(1)
    chosen = MonitorSettings(metrics_port=port, **settings)  # type: ignore[arg-type]
    monitor = Monitor(kafka, chosen, "default")
    work, ready = asyncio.create_task(monitor.work()), asyncio.create_task(monitor.ready.wait())
    try:
        await asyncio.wait({work, ready}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        for task in (work, ready):
            task.cancel()
        await asyncio.gather(work, ready, return_exceptions=True)
        await monitor.close()


async def page(address: str) -> str:
    """What Prometheus would read."""
    return await asyncio.to_thread(_fetched, address)


async def publish_statistics(producer: Producer, statistics: Sequence[Statistic]) -> None:
    """One after the other, as windows come."""
    for statistic in statistics:
        made = headers.make_headers(ANALYTICS, ids.new_id("window"), "/test")
        key = f"{statistic.name}/{statistic.labels.get('model_version', '')}"
        await producer.send(Outgoing(ANALYTICS, key, codec.checked(ANALYTICS, statistic), made))


def _fetched(address: str) -> str:
    # As Prometheus asks.
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    request = urllib.request.Request(address, headers=asked)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read(), "utf-8")
