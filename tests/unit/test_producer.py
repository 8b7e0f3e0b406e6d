"""The awaiting producer over a stand-in for librdkafka: what goes out, in order, and what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import confluent_kafka
import pytest
import pytest_asyncio
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import DeliveryFailed, RecordTooLarge
from schemas.topics import TOKENS
from streams.producer import Delivered, Outgoing, Producer
from streams.settings import KafkaSettings


class Librdkafka:
    """A queue that is full so many times, and a broker that takes all there is at each poll."""

    def __init__(self, _config: dict[str, Any]) -> None:
        self.full = 0
        self.begun = 0
        self.sent: list[tuple[str, int]] = []
        self._waiting: list[tuple[Callable[..., None], int]] = []
        self._lock = threading.Lock()

    def produce(self, _topic: str, key: str, on_delivery: Callable[..., None], **_: Any) -> None:
        if key == "large":
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        if key == "odd":
            raise ValueError("odd")
        if self.full:
            self.full -= 1
            raise BufferError
        with self._lock:
            self._waiting.append((on_delivery, len(self.sent)))
            self.sent.append((key, self.begun))

    def poll(self, _timeout_s: float) -> None:
        threading.Event().wait(0.001)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for on_delivery, offset in waiting:
            on_delivery(None, Placed(offset))

    def flush(self, _timeout_s: float) -> None:
        self.poll(0)


class Placed:
    """A message that the broker has."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def topic(self) -> str:
        return "tokens"


@pytest_asyncio.fixture
async def producer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Producer]:
    monkeypatch.setattr(confluent_kafka, "Producer", Librdkafka)
    made = Producer(KafkaSettings())
    yield made
    await made.close()


def librdkafka(producer: Producer) -> Librdkafka:
    found = producer._producer
    assert isinstance(found, Librdkafka)
    return found


def record(key: str) -> Outgoing:
    return Outgoing(TOKENS, key, b"{}", [])


@pytest.mark.asyncio
async def test_what_is_sent_in_one_turn_goes_out_together_and_in_order(producer: Producer) -> None:
    broker = librdkafka(producer)

    async def send(number: int) -> Delivered:
        broker.begun += 1
        return await producer.send(record(str(number)))

    found = await asyncio.gather(*(send(number) for number in range(20)))
    assert found == [Delivered(0, number) for number in range(20)]
    # None before all had begun.
    assert broker.sent == [(str(number), 20) for number in range(20)]


@pytest.mark.asyncio
async def test_a_full_queue_keeps_the_order_and_loses_nothing(producer: Producer) -> None:
    librdkafka(producer).full = 3
    first = asyncio.create_task(producer.send(record("first")))
    await asyncio.sleep(0.005)
    await asyncio.gather(first, producer.send(record("second")))
    assert [key for key, _ in librdkafka(producer).sent] == ["first", "second"]


@pytest.mark.asyncio
async def test_closing_waits_for_room_in_the_queue(producer: Producer) -> None:
    librdkafka(producer).full = 3
    sending = asyncio.create_task(producer.send(record("late")))
    await asyncio.sleep(0)
    await producer.close()
    assert await sending == Delivered(0, 0)


@pytest.mark.asyncio
async def test_what_never_finds_room_fails_when_the_producer_closes(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.producer._CLOSE_S_MAX", 0.03)
    librdkafka(producer).full = 1_000_000
    sending = asyncio.create_task(producer.send(record("stuck")))
    await asyncio.sleep(0)
    await producer.close()
    with pytest.raises(DeliveryFailed, match="was not sent"):
        await sending


@pytest.mark.asyncio
async def test_what_cannot_be_sent_fails_its_own_sender_alone(producer: Producer) -> None:
    keys = ["large", "one", "odd", "two"]
    large, one, odd, two = await asyncio.gather(
        *(producer.send(record(key)) for key in keys), return_exceptions=True
    )
    assert isinstance(large, RecordTooLarge) and isinstance(odd, ValueError)
    assert (one, two) == (Delivered(0, 0), Delivered(0, 1))


@pytest.mark.asyncio
async def test_a_sender_that_gave_up_in_time_sends_nothing(producer: Producer) -> None:
    librdkafka(producer).full = 1_000_000
    given_up = asyncio.create_task(producer.send(record("given up")))
    await asyncio.sleep(0.002)
    given_up.cancel()
    librdkafka(producer).full = 0
    await producer.send(record("next"))
    assert [key for key, _ in librdkafka(producer).sent] == ["next"]
