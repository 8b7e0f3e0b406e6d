"""SDK publish rate against a bare confluent-kafka loop that sends the same bytes."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, Final

import confluent_kafka

from schemas import codec, headers
from schemas.events import Document
from schemas.topics import DOCUMENTS
from streams.client import Client
from streams.producer import producer_config
from streams.settings import KafkaSettings

RECORDS: Final = 50_000
ROUNDS: Final = 5
_TEXT: Final = "Water boils at 100 degrees Celsius at sea level. " * 8


async def bench_publish(kafka: KafkaSettings) -> dict[str, Any]:
    """Records per second of both, and the median of the ratios of adjacent rounds."""
    async with Client(kafka, source="/bench") as client:
        bare = _bare_producer(kafka)
        await client.publish_document("warm-up")
        _bare_round(bare, kafka, RECORDS // 10)
        rounds = [
            (await _sdk_round(client), _bare_round(bare, kafka, RECORDS)) for _ in range(ROUNDS)
        ]
    return {
        "sdk_records_per_s": round(median(sdk for sdk, _ in rounds)),
        "bare_records_per_s": round(median(plain for _, plain in rounds)),
        "ratio": round(median(sdk / plain for sdk, plain in rounds), 3),
        "goal": ">= 0.9",
    }


async def _sdk_round(client: Client) -> float:
    documents = (Document(_TEXT, f"bench-{number}") for number in range(RECORDS))
    started = time.perf_counter()
    await client.publish_documents(documents)
    return RECORDS / (time.perf_counter() - started)


def _bare_producer(kafka: KafkaSettings) -> confluent_kafka.Producer:
    return confluent_kafka.Producer(producer_config(kafka, linger_ms=1.0))


def _bare_round(producer: confluent_kafka.Producer, kafka: KafkaSettings, count: int) -> float:
    """What a careful user would write: same settings, value made up front, errors looked at."""
    topic = kafka.topic_name(DOCUMENTS)
    value = codec.encode(Document(_TEXT, "bench-0"))
    made = headers.make_headers(DOCUMENTS, "bench", "/bench")
    failures: list[Any] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(error)

    started = time.perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(
                    topic, value, f"bench-{number}", headers=list(made), on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    producer.flush()
    if failures:
        raise RuntimeError(f"{len(failures)} records failed: {failures[0]}")
    return count / (time.perf_counter() - started)
