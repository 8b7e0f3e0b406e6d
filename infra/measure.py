"""Figures of a river, read off its own topics: counts, latency of each hop, tokens per second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from math import ceil
from typing import Final

from schemas import codec
from schemas.events import Generation
from schemas.topics import (
    ANALYTICS,
    CONTEXTS,
    EXAMPLES,
    GENERATIONS,
    PASSAGES,
    PROMPTS,
    TOKENS,
    Topic,
)
from streams.admin import describe_topics
from streams.settings import KafkaSettings
from streams.subscription import Subscription

HOPS: Final = (
    ("prompt_to_context", PROMPTS, CONTEXTS),
    ("context_to_first_token", CONTEXTS, TOKENS),
    ("first_token_to_generation", TOKENS, GENERATIONS),
    ("prompt_to_generation", PROMPTS, GENERATIONS),
)


# Topics that are written in transactions, whose markers take up offsets.
_TRANSACTIONAL: Final = (PASSAGES, GENERATIONS, EXAMPLES, ANALYTICS)


def percentiles(values: Iterable[float]) -> dict[str, float | int | None]:
    """p50 and p99 by the nearest rank, and how many values there are."""
    ordered = sorted(values)

    def at(share: float) -> float | None:
        return round(ordered[ceil(share * len(ordered)) - 1], 2) if ordered else None

    return {"p50": at(0.50), "p99": at(0.99), "n": len(ordered)}


async def hop_latencies(kafka: KafkaSettings) -> dict[str, dict[str, float | int | None]]:
    """Milliseconds between the broker's time stamps of one prompt's records, topic to topic."""
    first = {
        topic.name: await _first_ms(kafka, topic)
        for topic in (PROMPTS, CONTEXTS, TOKENS, GENERATIONS)
    }
    return {
        name: percentiles(
            after_ms - first[before.name][key]
            for key, after_ms in first[after.name].items()
            if key in first[before.name]
        )
        for name, before, after in HOPS
    }


async def record_counts(kafka: KafkaSettings) -> dict[str, int]:
    """How many records each topic holds; markers of transactions are not counted."""
    counts = {}
    for state in describe_topics(kafka):
        name = state.name.removeprefix(kafka.topic_prefix)
        counts[name] = state.records
    for topic in (topic for topic in _TRANSACTIONAL if counts[topic.name]):
        counts[topic.name] = len([key async for key, _ in _times(kafka, topic)])
    return counts


async def generations(kafka: KafkaSettings) -> list[Generation]:
    """All finished records."""
    subscription = Subscription(kafka, GENERATIONS, since="earliest")
    async with subscription:
        return [
            codec.decode(GENERATIONS, record.value)
            async for record in subscription.present()
            if record.value is not None
        ]


def tokens_per_s(finished: Sequence[Generation]) -> float | None:
    """Completion tokens over the time in which at least one answer was being written."""
    spans = sorted((g.timings.started_ms, g.timings.finished_ms) for g in finished)
    busy_ms, end_ms = 0, 0
    for start_ms, stop_ms in spans:
        busy_ms += max(0, stop_ms - max(start_ms, end_ms))
        end_ms = max(end_ms, stop_ms)
    tokens = sum(g.usage.completion_tokens for g in finished)
    return round(1000 * tokens / busy_ms, 1) if busy_ms else None


async def _first_ms(kafka: KafkaSettings, topic: Topic) -> dict[str, int]:
    """When the first record of each key came."""
    found: dict[str, int] = {}
    async for key, timestamp_ms in _times(kafka, topic):
        found[key] = min(timestamp_ms, found.get(key, timestamp_ms))
    return found


async def _times(kafka: KafkaSettings, topic: Topic) -> AsyncIterator[tuple[str, int]]:
    subscription = Subscription(kafka, topic, since="earliest")
    async with subscription:
        async for record in subscription.present():
            yield record.key_text or "", record.timestamp_ms
