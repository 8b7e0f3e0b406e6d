"""SDK publish rates against bare confluent-kafka loops that send the same documents.

In bulk: the bare loop encodes each document, as every publisher must, and copies headers that are
the same in number and size but made once. A second one sends a fixed value, which no publisher can
but which bounds what Python allows. One by one: each record is awaited before the next is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
ROUNDS: Final = 12
SINGLES: Final = 500
SINGLE_ROUNDS: Final = 7
_TEXT: Final = "Water boils at 100 degrees Celsius at sea level. " * 8
_FIXED: Final = Document(_TEXT, "bench-0")


async def bench_publish(kafka: KafkaSettings) -> dict[str, Any]:
    """Records per second of each way, in turn, and the ratios of adjacent rounds."""
    async with Client(kafka, source="/bench") as client:
        return {
            "bulk": await _bulk(client, kafka) | {"goal": "ratio >= 0.9"},
            "one_by_one": await _one_by_one(client, kafka),
        }


async def _bulk(client: Client, kafka: KafkaSettings) -> dict[str, Any]:
    bare = confluent_kafka.Producer(producer_config(kafka, linger_ms=5.0))
    await client.publish_documents(_documents(RECORDS // 10))
    _bare_round(bare, kafka, _documents(RECORDS // 10))
    sdk, encoding, fixed = [], [], []
    for number in range(ROUNDS):
        # In turn the first, for the broker is still busy with the round before.
        if number % 2:
            sdk.append(await _sdk_round(client))
        encoding.append(_bare_round(bare, kafka, _documents(RECORDS)))
        if not number % 2:
            sdk.append(await _sdk_round(client))
    for _ in range(ROUNDS):
        fixed.append(_bare_round(bare, kafka, [_FIXED] * RECORDS, encoded=codec.encode(_FIXED)))
    fixed_rate = median(rate.records_per_s for rate in fixed)
    return _compared(sdk, encoding) | {
        "bare_fixed_value_records_per_s": round(fixed_rate),
        "ratio_to_fixed_value": round(median(rate.records_per_s for rate in sdk) / fixed_rate, 3),
    }


async def _one_by_one(client: Client, kafka: KafkaSettings) -> dict[str, Any]:
    bare = confluent_kafka.Producer(producer_config(kafka, linger_ms=0.0))
    rounds = [
        (await _sdk_singles(client), _bare_singles(bare, kafka)) for _ in range(SINGLE_ROUNDS + 1)
    ]
    sdk, by_hand = (list(taken) for taken in zip(*rounds[1:], strict=True))
    return _compared(sdk, by_hand)


@dataclass(slots=True)
class _Watch:
    """The time since it was made, of the clock and of this process's threads."""

    _wall_s: float = field(default_factory=time.perf_counter)
    _cpu_s: float = field(default_factory=time.process_time)

    def rate(self, records: int) -> _Rate:
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return _Rate(records / wall_s, 1e6 * cpu_s / records)


@dataclass(frozen=True, slots=True)
class _Rate:
    """What a round achieved. Other work on the machine disturbs the second less than the first."""

    records_per_s: float
    cpu_us_per_record: float


def _compared(sdk: list[_Rate], bare: list[_Rate]) -> dict[str, Any]:
    pairs = list(zip(sdk, bare, strict=True))
    ratios = sorted(a.records_per_s / b.records_per_s for a, b in pairs)
    return {
        "sdk_records_per_s": round(median(rate.records_per_s for rate in sdk)),
        "bare_records_per_s": round(median(rate.records_per_s for rate in bare)),
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "sdk_cpu_us_per_record": round(median(rate.cpu_us_per_record for rate in sdk), 2),
        "bare_cpu_us_per_record": round(median(rate.cpu_us_per_record for rate in bare), 2),
        "cpu_ratio": round(median(b.cpu_us_per_record / a.cpu_us_per_record for a, b in pairs), 3),
    }


def _documents(count: int) -> Iterator[Document]:
    return (Document(_TEXT, f"bench-{number}") for number in range(count))


async def _sdk_round(client: Client) -> _Rate:
    watch = _Watch()
    await client.publish_documents(_documents(RECORDS))
    return watch.rate(RECORDS)


async def _sdk_singles(client: Client) -> _Rate:
    watch = _Watch()
    for document in _documents(SINGLES):
        await client.publish_document(document)
    return watch.rate(SINGLES)


def _bare_singles(producer: confluent_kafka.Producer, kafka: KafkaSettings) -> _Rate:
    """Each record is produced and polled for; as in `_bare_round`, with fixed headers."""
    topic = kafka.topic_name(DOCUMENTS)
    made: Any = headers.make_headers(DOCUMENTS, "bench", "/bench")
    reports: list[Any] = []
    watch = _Watch()
    for document in _documents(SINGLES):
        producer.produce(
            topic,
            msgspec.json.encode(document),
            document.document_id,
            headers=made,
            on_delivery=lambda error, _message: reports.append(error),
        )
        while not reports:
            producer.poll(1.0)
        if (error := reports.pop()) is not None:
            raise RuntimeError(f"A record failed: {error}")
    return watch.rate(SINGLES)


def _bare_round(
    producer: confluent_kafka.Producer,
    kafka: KafkaSettings,
    documents: Iterable[Document],
    encoded: bytes | None = None,
) -> _Rate:
    """What a careful user would write: the same settings, a callback that looks at errors.

    Headers are the same in number and size but made once; the value too where `encoded` is given.
    """
    topic = kafka.topic_name(DOCUMENTS)
    made: Any = headers.make_headers(DOCUMENTS, "bench", "/bench")
    failures: list[Any] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(error)

    watch, count = _Watch(), 0
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
    return watch.rate(count)
