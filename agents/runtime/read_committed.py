"""Faust's consumer, told to leave out what transactions did not commit.

Faust reads committed records only where it writes transactions itself. Finished records are written
in transactions of ours, and one that was aborted must never be taken for an answer.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


def read_committed(app: faust.App) -> None:
    """Make an app that has not started yet read committed records only."""
    app.transport = _Transport(app.conf.broker_consumer, app)
