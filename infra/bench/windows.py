"""Job 1 of the windows against the same sums in a bare confluent-kafka loop, in one run.

Both read the same records: answers of so many versions (the windows' keys) over an hour, and
feedback on every tenth. Flink's rate is the slope of the offsets that its checkpoints commit, so
that its start does not count; the loop's is records over the time from its first record to its end.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import confluent_kafka
import msgspec
from confluent_kafka import Consumer, TopicPartition

from infra.bench.windows_loop import loop_rate
from infra.flink.provision import provision_flink
from infra.lifeline import Lifeline
from infra.part import Part, RunningPart
from schemas.clock import now_ms
from schemas.errors import WorkerFailed
from schemas.topics import FEEDBACK, GENERATIONS, Topic
from streams.admin import create_topics
from streams.producer import producer_config
from streams.settings import KafkaSettings

ANSWERS: Final = 200_000
RECORDS: Final = ANSWERS + ANSWERS // 10
KEYS: Final = (10, 100, 1_000)
_SPAN_MS: Final = 3_600_000
_DEADLINE_S: Final = 180.0
_POLL_INTERVAL_S: Final = 0.2


async def bench_windows(kafka: KafkaSettings) -> dict[str, Any]:
    """Records per second of both, and their ratio, for each number of keys."""
    await asyncio.to_thread(provision_flink)
    found: dict[str, Any] = {}
    for keys in KEYS:
        own = kafka.model_copy(update={"topic_prefix": f"{kafka.topic_prefix}{keys}."})
        await asyncio.to_thread(create_topics, own)
        await asyncio.to_thread(_publish, own, keys)
        loop = await asyncio.to_thread(loop_rate, own, RECORDS)
        flink = await _flink_rate(own)
        found[str(keys)] = {
            "loop_records_per_s": round(loop),
            "flink_records_per_s": round(flink),
            "ratio": round(flink / loop, 3),
        }
    return {"answers": ANSWERS, "keys": found}


def _publish(kafka: KafkaSettings, keys: int) -> None:
    producer = confluent_kafka.Producer(producer_config(kafka, linger_ms=50.0))
    answers, feedback = kafka.topic_name(GENERATIONS), kafka.topic_name(FEEDBACK)
    begin_ms = now_ms() - _SPAN_MS
    for number in range(ANSWERS):
        at_ms = begin_ms + number * _SPAN_MS // ANSWERS
        _produce(producer, answers, f"p{number}", _answer(number, at_ms, keys))
        if number % 10 == 0:
            rating = {"prompt_id": f"p{number}", "feedback_id": f"f{number}", "rating": 1.0}
            _produce(producer, feedback, f"p{number}", rating)
    producer.flush()


def _answer(number: int, at_ms: int, keys: int) -> dict[str, Any]:
    return {
        "prompt_id": f"p{number}",
        "generation_id": f"g{number}",
        "text": "Water boils at 100 degrees Celsius at sea level. " * 4,
        "model": "bench",
        "model_version": f"v{number % keys}",
        "finish_reason": "stop",
        "attempt": 0,
        "passages": [],
        "cited": [],
        "usage": {"prompt_tokens": 100, "completion_tokens": 40},
        "timings": {
            "prompted_ms": at_ms - 400 - number % 1_000,
            "retrieved_ms": at_ms - 380,
            "started_ms": at_ms - 370,
            "finished_ms": at_ms,
            "first_token_ms": at_ms - 300,
        },
    }


def _produce(
    producer: confluent_kafka.Producer, topic: str, key: str, value: dict[str, Any]
) -> None:
    while True:
        try:
            producer.produce(topic, msgspec.json.encode(value), key)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)


async def _flink_rate(kafka: KafkaSettings) -> float:
    lifeline = Lifeline()
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "HEADWATER_ANALYTICS_JOBS": "quality",
            "HEADWATER_ANALYTICS_CHECKPOINT_S": "1",
            "HEADWATER_ANALYTICS_CHECKPOINTS": folder,
        }
        command = [sys.executable, "-m", "infra.cli", "analytics", "run"]
        running = await RunningPart.start(
            Part("windows", command, env, grace_s=2.0), Path(folder), lifeline
        )
        try:
            return await asyncio.to_thread(_slope, kafka, running)
        finally:
            await running.stop()
            lifeline.close()


def _slope(kafka: KafkaSettings, running: RunningPart) -> float:
    """Records per second between the first commit and the last."""
    seen: list[tuple[float, int]] = []
    deadline_s = time.monotonic() + _DEADLINE_S
    with _offsets(kafka) as committed:
        while not seen or seen[-1][1] < RECORDS:
            if time.monotonic() > deadline_s:
                raise running.failure(f"read {seen[-1][1] if seen else 0} of {RECORDS} records")
            done = committed()
            if done and (not seen or done != seen[-1][1]):
                seen.append((time.monotonic(), done))
            time.sleep(_POLL_INTERVAL_S)
    if len(seen) < 2:
        raise WorkerFailed("Flink read all in one checkpoint.", "Measure with more answers.")
    (first_s, first), (last_s, last) = seen[0], seen[-1]
    return (last - first) / (last_s - first_s)


@contextmanager
def _offsets(kafka: KafkaSettings) -> Iterator[Callable[[], int]]:
    """Asks how many answers and pieces of feedback Flink's checkpoints have committed."""
    with ExitStack() as readers:
        groups = {
            topic: readers.enter_context(closing(_reader(kafka, topic)))
            for topic in (GENERATIONS, FEEDBACK)
        }
        yield lambda: sum(_committed(group, kafka, topic) for topic, group in groups.items())


def _reader(kafka: KafkaSettings, topic: Topic) -> Consumer:
    group = kafka.group_name(f"windows-{topic.name}")
    return Consumer(kafka.client_config() | {"group.id": group})


def _committed(group: Consumer, kafka: KafkaSettings, topic: Topic) -> int:
    name = kafka.topic_name(topic)
    places = [TopicPartition(name, number) for number in range(topic.partitions)]
    return sum(max(place.offset, 0) for place in group.committed(places, timeout=10))
