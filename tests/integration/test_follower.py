"""Following a topic: when a reader has caught up, and that waiting longer loses nothing."""

from __future__ import annotations

import asyncio

import confluent_kafka
import pytest

from schemas.topics import GENERATIONS, PROMPTS, Topic
from streams import follower as following
from streams.fenced_writer import FencedWriter
from streams.follower import Follower, Start
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


def outgoing(topic: Topic, numbers: range) -> list[Outgoing]:
    return [Outgoing(topic, f"key-{number}", b"%d" % number, []) for number in numbers]


async def publish(kafka: KafkaSettings, numbers: range) -> None:
    producer = Producer(kafka)
    await asyncio.gather(*map(producer.send, outgoing(PROMPTS, numbers)))
    await producer.close()


def values(records: list[Record]) -> list[int]:
    return sorted(int(record.value or b"") for record in records)


async def present(kafka: KafkaSettings, topic: Topic, start: Start = "earliest") -> list[int]:
    follower = Follower(kafka, topic, start)
    try:
        async with asyncio.timeout(30):
            await follower.open()
            return values([record async for record in follower.until_caught_up()])
    finally:
        await follower.close()


async def test_who_follows_an_empty_topic_has_caught_up(kafka: KafkaSettings) -> None:
    assert await present(kafka, PROMPTS) == []


async def test_all_that_was_there_comes_before_the_end_is_told(kafka: KafkaSettings) -> None:
    await publish(kafka, range(1_200))
    assert await present(kafka, PROMPTS) == list(range(1_200))
    assert await present(kafka, PROMPTS, "latest") == []


async def test_marks_of_transactions_at_the_end_are_no_records_to_wait_for(
    kafka: KafkaSettings,
) -> None:
    writer = FencedWriter(kafka, "test-follower")
    await writer.open()
    for first in range(0, 30, 10):
        await writer.write(outgoing(GENERATIONS, range(first, first + 10)))
    # The last mark may come a moment after its commit.
    async with asyncio.timeout(30):
        while len(found := await present(kafka, GENERATIONS)) < 30:
            pass
    assert found == list(range(30))


@pytest.mark.parametrize("topic", [PROMPTS, GENERATIONS])
async def test_a_quiet_reader_waits_longer_and_misses_nothing(
    topic: Topic, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_QUIET_POLLS", 1)
    waits_ms: list[int] = []
    closed: list[int] = []

    class Watched(confluent_kafka.Consumer):
        def __init__(self, config: dict[str, object]) -> None:
            super().__init__(config)
            self.wait_ms = int(str(config["fetch.wait.max.ms"]))
            waits_ms.append(self.wait_ms)

        def close(self) -> None:
            closed.append(self.wait_ms)
            super().close()

    monkeypatch.setattr(following.confluent_kafka, "Consumer", Watched)
    writer = FencedWriter(kafka, "test-follower")
    await writer.open()
    await writer.write(outgoing(topic, range(10)))
    follower = Follower(kafka, topic, "earliest")
    await follower.open()
    try:
        found = [record async for record in follower.until_caught_up()]
        async with asyncio.timeout(60):
            while len(waits_ms) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            # Records come all the time from here on: the change may not wait for an end.
            sent = 10
            while not closed:
                await writer.write(outgoing(topic, range(sent, sent + 1)))
                sent += 1
            await writer.write(outgoing(topic, range(sent, sent + 10)))
            while len(found) < sent + 10:
                found += await follower.batch()
            await asyncio.sleep(1)
    finally:
        await follower.close()
    assert values(found) == list(range(sent + 10))
    for partition in {record.partition for record in found}:
        offsets = [record.offset for record in found if record.partition == partition]
        assert offsets == sorted(offsets)
    assert (waits_ms, closed) == ([100, 500], [100, 500])


async def test_who_cannot_become_patient_reads_on(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_QUIET_POLLS", 1)
    monkeypatch.setattr(following, "_PATIENT", {"fetch.wait.max.ms": -1})
    await publish(kafka, range(1))
    follower = Follower(kafka, PROMPTS, "earliest")
    await follower.open()
    try:
        found = [record async for record in follower.until_caught_up()]
        await asyncio.sleep(0.5)
        await publish(kafka, range(1, 2))
        async with asyncio.timeout(30):
            found += await follower.batch()
    finally:
        await follower.close()
    assert values(found) == [0, 1]
