"""Label quality of all feedback that Kafka still holds, counted from `outcomes`."""

from __future__ import annotations

from models.judging.labels import LabelQuality, LabelTallies
from schemas.topics import OUTCOMES
from streams.settings import KafkaSettings
from streams.subscription import Subscription


async def count_labels(kafka: KafkaSettings) -> list[LabelQuality]:
    """By label and model version; each outcome counts once."""
    tallies, seen = LabelTallies(), set()
    async with Subscription(kafka, OUTCOMES, since="earliest") as subscription:
        async for outcome in subscription.present_events():
            if outcome.outcome_id not in seen:
                seen.add(outcome.outcome_id)
                tallies.add(outcome.labels, outcome.predicted, outcome.model_version)
    return tallies.quality()
