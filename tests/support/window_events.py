"""Made-up answers, feedback, measurements and releases for the windows, with times of their own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Producer

from schemas.topics import BY_NAME
from streams.settings import KafkaSettings

MINUTE_MS = 60_000


@dataclass(frozen=True)
class Made:
    """A record to be published; `at_ms` is its event time, None that of its arrival."""

    topic: str
    key: str
    value: dict[str, Any] | bytes
    at_ms: int | None


def make_exchanges(
    count: int, begin_ms: int, span_s: int, seed: int = 0, sketch: int = 16
) -> list[Made]:
    """Answers of two versions over `span_s` seconds, and feedback on some, in order of time.

    Some feedback is for no answer, some comes long after it, some has labels. `sketch` is how many
    numbers stand for a prompt's embedding.
    """
    chance = random.Random(seed)
    made = []
    for number in range(count):
        finished_ms = begin_ms + int(number * span_s * 1_000 / count)
        answer = _answer(number, finished_ms, chance, sketch)
        made.append(answer)
        if chance.random() < 0.4:
            made.append(_feedback(number, finished_ms, chance))
    return sorted(made, key=lambda record: record.at_ms or 0)


def _answer(number: int, finished_ms: int, chance: random.Random, sketch: int) -> Made:
    total_ms = chance.randint(200, 4_000)
    prompted_ms = finished_ms - total_ms
    prompt_id = f"p{number}"
    value = {
        "prompt_id": prompt_id,
        "generation_id": f"g{number}",
        "text": "An answer.",
        "model": "tiny",
        "model_version": chance.choice(["base", "v1"]),
        "finish_reason": chance.choices(["stop", "error", "cancelled"], [18, 1, 1])[0],
        "attempt": 0,
        "passages": [{"cosine": chance.uniform(0.0, 1.0)}] if number % 3 else [],
        "cited": [],
        "usage": {"prompt_tokens": 20, "completion_tokens": chance.randint(1, 60)},
        "prompt_chars": chance.randint(5, 900),
        "prompt_sketch": [chance.gauss(0.0, 0.25) for _ in range(sketch)],
        "conversation_id": f"c{number // 7}" if number % 5 else None,
        "timings": {
            "prompted_ms": prompted_ms,
            "retrieved_ms": prompted_ms + 10,
            "started_ms": prompted_ms + 20,
            "finished_ms": finished_ms,
            "first_token_ms": prompted_ms + total_ms // 3,
        },
    }
    return Made("generations", prompt_id, value, finished_ms)


def _feedback(number: int, finished_ms: int, chance: random.Random) -> Made:
    after_s = chance.choices([chance.randint(1, 90), chance.randint(700, 900)], [9, 1])[0]
    known = chance.random() < 0.95
    prompt_id = f"p{number}" if known else f"unknown{number}"
    value: dict[str, Any] = {"prompt_id": prompt_id, "feedback_id": f"f{number}"}
    if chance.random() < 0.9:
        value["rating"] = chance.choice([-1.0, -0.5, 0.0, 0.5, 1.0])
    if "rating" not in value or chance.random() < 0.2:
        value["correction"] = "A better answer."
    if chance.random() < 0.3:
        value["labels"] = {"language": chance.choice(["de", "en"]), "toxic": "no"}
    return Made("feedback", prompt_id, value, finished_ms + after_s * 1_000 + 1)


def make_measurements(count: int, begin_ms: int, span_s: int, seed: int = 0) -> list[Made]:
    """Freshness of documents, as retrieve measures it, and releases with the privacy they cost."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        at_ms = begin_ms + int(number * span_s * 1_000 / count)
        took_ms = chance.randint(20, 3_000)
        value = {
            "name": "document_freshness" if number % 4 else "feedback_freshness",
            "window_start_ms": at_ms - took_ms,
            "window_end_ms": at_ms,
            "values": {"freshness_ms": float(took_ms)},
        }
        made.append(Made("analytics", f"measured{number}", value, at_ms))
        if number % 10 == 0:
            spent = {"mechanism": "gaussian", "epsilon": 0.25, "epsilon_total": 0.25 * number}
            release = {
                "adapter": "tone",
                "model_version": f"v{number}",
                "origin": "online",
                "published_ms": at_ms,
                "privacy": spent,
            }
            made.append(Made("model-updates", "tone", release, at_ms))
    return made


def shuffled(records: Sequence[Made], within_s: float, seed: int = 0) -> list[Made]:
    """Out of order, by less than `within_s`."""
    chance = random.Random(seed)
    return sorted(
        records, key=lambda record: (record.at_ms or 0) + chance.random() * within_s * 1_000
    )


def with_copies(records: Sequence[Made], within_s: float, seed: int = 0) -> list[Made]:
    """With every fifth piece of feedback sent again, a little later."""
    chance = random.Random(seed)
    copies = [
        replace(record, at_ms=(record.at_ms or 0) + chance.randint(0, int(within_s * 1_000)))
        for record in records
        if record.topic == "feedback" and chance.random() < 0.2
    ]
    return sorted([*records, *copies], key=lambda record: record.at_ms or 0)


def publish(kafka: KafkaSettings, records: Iterable[Made]) -> None:
    """Publish records, and wait until the broker has all.

    In small batches, as many writers make them: a reader always gets whole ones. Idempotence keeps
    their order where one is sent again.
    """
    options = {"queue.buffering.max.messages": 1_000_000, "batch.size": 16_384}
    producer = Producer(kafka.client_config() | options | {"enable.idempotence": True})
    for number, record in enumerate(records):
        value = record.value
        producer.produce(
            kafka.topic_name(BY_NAME[record.topic]),
            value if isinstance(value, bytes) else msgspec.json.encode(value),
            record.key,
            headers=_headers(record, number),
        )
        producer.poll(0)
    assert producer.flush(60) == 0


def _headers(record: Made, number: int) -> list[tuple[str, str | bytes | None]]:
    if record.at_ms is None:
        return []
    time = datetime.fromtimestamp(record.at_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    return [("ce_id", str(number)), ("ce_time", time.replace("+00:00", "Z"))]
