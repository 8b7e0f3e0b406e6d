"""What the topics tell of learning: versions, rounds, privacy spent, federated rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import LEARNING_ROUND, Event, FederatedRound, ModelUpdate, Statistic
from schemas.topics import ANALYTICS, FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription


@dataclass(slots=True)
class LearningState:
    """Versions and rounds, oldest first; `live` by adapter."""

    updates: list[ModelUpdate] = field(default_factory=list)
    rounds: list[Statistic] = field(default_factory=list)
    federated: list[FederatedRound] = field(default_factory=list)

    @property
    def live(self) -> dict[str, ModelUpdate]:
        return {update.adapter: update for update in self.updates}

    def known(self, version: str) -> ModelUpdate | None:
        """A version's own record, not that of a rollback to it, where the topic still has it."""
        found = [update for update in self.updates if update.model_version == version]
        own = [update for update in found if update.origin != "rollback"]
        return next(iter(own or found), None)


async def read_learning(kafka: KafkaSettings) -> LearningState:
    """As the topics are now."""
    # One that is told twice, after a restart of its learner, says the same.
    rounds = {
        event.labels.get("model_version"): event
        for event in await _events(kafka, ANALYTICS)
        if isinstance(event, Statistic) and event.name == LEARNING_ROUND
    }
    updates = [e for e in await _events(kafka, MODEL_UPDATES) if isinstance(e, ModelUpdate)]
    federated = await _events(kafka, FEDERATED_ROUNDS)
    return LearningState(
        updates, list(rounds.values()), [e for e in federated if isinstance(e, FederatedRound)]
    )


async def _events(kafka: KafkaSettings, topic: Topic) -> list[Event]:
    found: list[Event] = []
    async with Subscription(kafka, topic, since="earliest") as subscription:
        async for record in subscription.present():
            try:
                found.append(codec.decode(topic, record.value or b""))
            except EventInvalid:
                continue
    return found
