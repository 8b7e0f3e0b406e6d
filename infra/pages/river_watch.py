"""How much flows and how far agents are behind: sampled once for all pages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from agents.monitor.lag import LagReader
from schemas.topics import TOPICS, Topic
from streams.failures import explain
from streams.settings import KafkaSettings

_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Flow:
    """One topic: its offsets in all and a second, markers of transactions too.

    `lags` has the records that each consumer group has not done yet. Agents that keep offsets of
    their own (learn, adapt, study, track) have none that the broker knows.
    """

    topic: str
    written: int
    per_s: float
    lags: dict[str, int]


class RiverWatch:
    """Samples are shared: many open pages ask the broker no more than one does."""

    def __init__(self, kafka: KafkaSettings, every_s: float = 1.0) -> None:
        self._kafka = kafka
        self._every_s = every_s
        self._admin: AdminClient | None = None
        self._lag_reader: LagReader | None = None
        self._lock = asyncio.Lock()
        self._flows: list[Flow] = []
        self._ends: dict[str, int] = {}
        self._sampled_s = 0.0

    async def flows(self) -> list[Flow]:
        """In the order of `TOPICS`, no older than a second. Raises as `explain`."""
        async with self._lock:
            now_s = time.monotonic()
            if now_s - self._sampled_s >= self._every_s:
                ends, lags = await asyncio.to_thread(self._sample)
                passed_s = now_s - self._sampled_s
                self._flows = [self._flow(topic, ends, lags, passed_s) for topic in TOPICS]
                self._ends, self._sampled_s = ends, now_s
            return self._flows

    def _flow(
        self, topic: Topic, ends: dict[str, int], lags: dict[str, dict[str, int]], passed_s: float
    ) -> Flow:
        written, before = ends.get(topic.name, 0), self._ends.get(topic.name)
        per_s = 0.0 if before is None else (written - before) / passed_s
        return Flow(topic.name, written, per_s, lags.get(topic.name, {}))

    def _sample(self) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        try:
            if self._admin is None:
                self._admin = AdminClient(self._kafka.client_config())
            ends = self._partition_ends(self._admin)
        except KafkaException as error:
            raise explain(error, self._kafka.bootstrap) from error
        if self._lag_reader is None:
            self._lag_reader = LagReader(self._kafka)
        lags: dict[str, dict[str, int]] = {}
        for lag in self._lag_reader.read()[0]:
            lags.setdefault(lag.topic, {})[lag.group] = lag.records
        totals: dict[str, int] = {}
        for (name, _), end in ends.items():
            totals[name] = totals.get(name, 0) + end
        return totals, lags

    def _partition_ends(self, admin: AdminClient) -> dict[tuple[str, int], int]:
        """The next offset of each partition of ours."""
        names = {self._kafka.topic_name(topic): topic.name for topic in TOPICS}
        known = admin.list_topics(timeout=_TIMEOUT_S).topics
        places = [
            TopicPartition(name, partition)
            for name in names
            if name in known
            for partition in known[name].partitions
        ]
        wanted = {place: OffsetSpec.latest() for place in places}
        found = admin.list_offsets(wanted, request_timeout=_TIMEOUT_S)
        return {
            (names[place.topic], place.partition): int(future.result().offset)
            for place, future in found.items()
        }
