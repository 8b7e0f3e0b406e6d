"""SDK publish rate against a bare confluent-kafka loop that sends the same documents.

The bare loop encodes each document, as every publisher must, and copies fixed headers; a second
one sends a fixed value, which no publisher can but which bounds what Python allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any, Final

import confluent_kafka
import msgspec

from schemas import codec, headers
from schemas.events import Document
from schemas.topics import DOCUMENTS
from streams.client import Client
from streams.producer import producer_config
from streams.settings import KafkaSettings

RECORDS: Final = 50_000
ROUNDS: Final = 5
_TEXT: Final = "Water boils at 100 degrees Celsius at sea level. " * 8
_FIXED: Final = Document(_TEXT, "bench-0")


async def bench_publish(kafka: KafkaSettings) -> dict[str, Any]:
    """Records per second of each way, and the median of the ratios of adjacent rounds."""
    bare = confluent_kafka.Producer(producer_config(kafka, linger_ms=5.0))
    async with Client(kafka, source="/bench") as client:
        await client.publish_documents(_documents(RECORDS // 10))
        _bare_round(bare, kafka, _documents(RECORDS // 10))
        rounds = [
            (
                await _sdk_round(client),
                _bare_round(bare, kafka, _documents(RECORDS)),
                _bare_round(bare, kafka, [_FIXED] * RECORDS, encoded=codec.encode(_FIXED)),
            )
            for _ in range(ROUNDS)
        ]
    sdk, encoding, fixed = (median(rates) for rates in zip(*rounds, strict=True))
    return {
        "sdk_records_per_s": round(sdk),
        "bare_records_per_s": round(encoding),
        "ratio": round(median(a / b for a, b, _ in rounds), 3),
        "bare_fixed_value_records_per_s": round(fixed),
        "ratio_to_fixed_value": round(median(a / c for a, _, c in rounds), 3),
        "goal": "ratio >= 0.9",
    }


def _documents(count: int) -> Iterator[Document]:
    return (Document(_TEXT, f"bench-{number}") for number in range(count))


async def _sdk_round(client: Client) -> float:
    started = time.perf_counter()
    await client.publish_documents(_documents(RECORDS))
    return RECORDS / (time.perf_counter() - started)


def _bare_round(
    producer: confluent_kafka.Producer,
    kafka: KafkaSettings,
    documents: Iterable[Document],
    encoded: bytes | None = None,
) -> float:
    """What a careful user would write: the same settings, a callback that looks at errors.

    Headers are the same in number and size but made once; the value too where `encoded` is given.
    """
    topic = kafka.topic_name(DOCUMENTS)
    made: Any = headers.make_headers(DOCUMENTS, "bench", "/bench")
    failures: list[Any] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(error)

    started, count = time.perf_counter(), 0
    for document in documents:
        value = encoded or msgspec.json.encode(document)
        while True:
            try:
                producer.produce(
                    topic, value, document.document_id, headers=made, on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
        count += 1
    producer.flush()
    if failures:
        raise RuntimeError(f"{len(failures)} records failed: {failures[0]}")
    return count / (time.perf_counter() - started)
