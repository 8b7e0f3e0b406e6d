"""What the topics tell of learning: versions with their reward, rounds, privacy spent, devices."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import (
    LEARNING_ROUND,
    QUALITY,
    Event,
    FederatedRound,
    ModelUpdate,
    Statistic,
)
from schemas.topics import ANALYTICS, FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription

_TOPICS: Final = (ANALYTICS, MODEL_UPDATES, FEDERATED_ROUNDS)
_WINDOWS_MAX: Final = 500


@dataclass(slots=True)
class Reward:
    """Of one version's answers: a mean, and of how many ratings."""

    mean: float = 0.0
    count: float = 0.0

    def add(self, mean: float, count: float) -> None:
        """Takes in the ratings of one more window."""
        self.count += count
        self.mean += (mean - self.mean) * count / self.count


@dataclass(slots=True)
class LearningState:
    """Versions and rounds, oldest first; `live` by adapter; `windows` are the latest rated ones."""

    updates: list[ModelUpdate] = field(default_factory=list)
    rounds: list[Statistic] = field(default_factory=list)
    federated: list[FederatedRound] = field(default_factory=list)
    rewards: dict[str, Reward] = field(default_factory=dict)
    windows: deque[Statistic] = field(default_factory=lambda: deque(maxlen=_WINDOWS_MAX))

    @property
    def live(self) -> dict[str, ModelUpdate]:
        return {update.adapter: update for update in self.updates}

    def known(self, version: str) -> ModelUpdate | None:
        """A version's own record, not that of a rollback to it, where the topic still has it."""
        found = [update for update in self.updates if update.model_version == version]
        own = [update for update in found if update.origin != "rollback"]
        return next(iter(own or found), None)

    def parent_of(self, update: ModelUpdate) -> str | None:
        """What served before a version, by its own record and not that of a rollback to it."""
        own = self.known(update.model_version)
        return None if own is None or own.origin == "rollback" else own.parent_version

    def take(self, event: Event) -> None:
        """Adds what one event tells."""
        if isinstance(event, ModelUpdate):
            self.updates.append(event)
        elif isinstance(event, FederatedRound):
            self.federated.append(event)
        elif isinstance(event, Statistic) and event.name == LEARNING_ROUND:
            # After its restart a learner tells of the last round once more.
            if event not in self.rounds:
                self.rounds.append(event)
        elif isinstance(event, Statistic) and event.name == QUALITY:
            self._take_window(event)

    def _take_window(self, window: Statistic) -> None:
        mean, count = window.values.get("reward_mean"), window.values.get("feedback", 0.0)
        version = window.labels.get("model_version")
        if mean is None or version is None or count <= 0:
            return
        # Two adapters on a row: the answer counts for the version of each.
        for name in {version, *version.split("+")}:
            self.rewards.setdefault(name, Reward()).add(mean, count)
        self.windows.append(window)


class LearningWatch:
    """One state for all open pages; each look reads only what came since the last one."""

    def __init__(self, kafka: KafkaSettings, every_s: float = 3.0) -> None:
        self._kafka = kafka
        self._every_s = every_s
        self._lock = asyncio.Lock()
        self._state = LearningState()
        self._positions: dict[str, str] = {}
        self._looked_s: float | None = None

    async def state(self) -> LearningState:
        """No older than a few seconds. Raises as `Subscription.open`."""
        async with self._lock:
            now_s = time.monotonic()
            if self._looked_s is None or now_s - self._looked_s >= self._every_s:
                for topic in _TOPICS:
                    await self._read(topic)
                self._looked_s = time.monotonic()
            return self._state

    async def _read(self, topic: Topic) -> None:
        resume = self._positions.get(topic.name)
        async with Subscription(
            self._kafka, topic, since="earliest", resume=resume
        ) as subscription:
            async for record in subscription.present():
                self._take(topic, record.value)
                # Noted with each record: a broken look must not count any of them twice.
                self._positions[topic.name] = subscription.position_after(record)

    def _take(self, topic: Topic, value: bytes | None) -> None:
        if value is None:
            return
        try:
            self._state.take(codec.decode(topic, value))
        except EventInvalid:
            return
