"""The sums of job 1 in one Python loop over a confluent-kafka consumer: what Flink is held against.

It keeps what a window needs and forgets nothing, writes once at its end, and survives no crash.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec
from confluent_kafka import Consumer

from schemas.topics import FEEDBACK, GENERATIONS
from streams.settings import KafkaSettings

_WINDOW_MS: Final = 60_000
_BATCH_RECORDS: Final = 1_000


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Timings(msgspec.Struct):
    prompted_ms: int
    finished_ms: int
    first_token_ms: int


class _Answer(msgspec.Struct):
    prompt_id: str
    model_version: str
    finish_reason: str
    usage: _Usage
    timings: _Timings


class _Feedback(msgspec.Struct):
    prompt_id: str
    feedback_id: str
    rating: float | None = None


@dataclass(slots=True)
class Window:
    """Of one version: the sums of job 1, and its times as counts of rounded values."""

    generations: int = 0
    answered: int = 0
    feedback: int = 0
    reward: float = 0.0
    tokens: int = 0
    first_token: Counter[int] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)


def loop_rate(kafka: KafkaSettings, records: int) -> float:
    """Records per second of reading and adding up so many."""
    config = kafka.client_config() | {
        "group.id": kafka.group_name("loop"),
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
    consumer = Consumer(config)
    consumer.subscribe([kafka.topic_name(GENERATIONS), kafka.topic_name(FEEDBACK)])
    sums = _Sums()
    try:
        seen, began_s = 0, 0.0
        while seen < records:
            messages = consumer.consume(_BATCH_RECORDS, timeout=1.0)
            began_s = began_s or (time.perf_counter() if messages else 0.0)
            for message in messages:
                if message.topic() == kafka.topic_name(GENERATIONS):
                    sums.answer(message.value() or b"")
                else:
                    sums.feedback(message.value() or b"", message.timestamp()[1])
            seen += len(messages)
        return seen / (time.perf_counter() - began_s)
    finally:
        consumer.close()


class _Sums:
    def __init__(self) -> None:
        self._answers = msgspec.json.Decoder(_Answer)
        self._feedback = msgspec.json.Decoder(_Feedback)
        self._versions: dict[str, str] = {}
        self._seen: set[str] = set()
        self._windows: dict[tuple[int, str], Window] = {}

    def answer(self, value: bytes) -> None:
        found = self._answers.decode(value)
        times = found.timings
        self._versions[found.prompt_id] = found.model_version
        window = self._window(times.finished_ms, found.model_version)
        window.generations += 1
        window.answered += found.finish_reason not in ("error", "cancelled")
        window.tokens += found.usage.completion_tokens
        window.first_token[_bucket(times.first_token_ms - times.prompted_ms)] += 1
        window.total[_bucket(times.finished_ms - times.prompted_ms)] += 1

    def feedback(self, value: bytes, at_ms: int) -> None:
        found = self._feedback.decode(value)
        version = self._versions.get(found.prompt_id)
        if version is None or found.feedback_id in self._seen:
            return
        self._seen.add(found.feedback_id)
        window = self._window(at_ms, version)
        window.feedback += 1
        window.reward += found.rating or 0.0

    def _window(self, at_ms: int, version: str) -> Window:
        return self._windows.setdefault((at_ms // _WINDOW_MS, version), Window())


def _bucket(took_ms: int) -> int:
    return round(math.log(max(took_ms, 1)) / 0.02)
