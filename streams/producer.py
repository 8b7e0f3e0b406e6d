"""An idempotent producer for asyncio: every send is awaited to its acknowledgement."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import DeliveryFailed, HeadwaterError
from schemas.headers import Headers
from schemas.topics import DEAD_LETTERS, Topic
from streams.failures import explain
from streams.settings import KafkaSettings

DeliveryCallback = Callable[[KafkaError | None, Message], None]
Report = tuple["asyncio.Future[Delivered]", KafkaError | None, Message]
Sending = tuple["asyncio.Future[Delivered]", "Outgoing"]

_QUEUE_FULL_WAIT_S: Final = 0.01
_CLOSE_S_MAX: Final = 10.0
_POLL_S: Final = 0.1

log = logging.getLogger("headwater.producer")


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where the broker put a record."""

    partition: int
    offset: int


class Outgoing(msgspec.Struct, frozen=True):
    """One record to send; `partition` None lets the key decide, `value` None is a tombstone."""

    topic: Topic
    key: str | bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


def producer_config(settings: KafkaSettings, linger_ms: float) -> dict[str, Any]:
    """librdkafka's settings that every producer of ours shares."""
    return settings.client_config() | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": linger_ms,
        "compression.type": "lz4",
        # The same partitioner as Kafka's Java clients and Faust, so that topics co-partition.
        "partitioner": "murmur2_random",
        "message.max.bytes": DEAD_LETTERS.batch_bytes_max,
        "delivery.timeout.ms": 30_000,
        # How long a topic may seem missing before it counts as missing.
        "topic.metadata.propagation.max.ms": 2_000,
        "queue.buffering.max.kbytes": 262_144,
    }


def try_produce(
    producer: confluent_kafka.Producer,
    settings: KafkaSettings,
    record: Outgoing,
    on_delivery: DeliveryCallback,
) -> bool:
    """Put a record into the local queue; False when that is full, for callers to wait their way.

    Raises KafkaException.
    """
    try:
        producer.produce(
            settings.topic_name(record.topic),
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            partition=-1 if record.partition is None else record.partition,
            on_delivery=on_delivery,
        )
    except BufferError:
        return False
    return True


class Producer:
    """Owns one librdkafka producer and the thread that serves its callbacks."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer = confluent_kafka.Producer(producer_config(settings, linger_ms=0.0))
        self._open = True
        # What this turn of the event loop sends, or what waits for room; in order.
        self._outgoing: deque[Sending] = deque()
        # What the thread has been told and the event loop not yet.
        self._reports: list[Report] = []
        self._reports_lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._serve_callbacks, name="headwater-producer", daemon=True
        )
        self._thread.start()

    async def send(self, record: Outgoing) -> Delivered:
        """Send one record and wait until the broker has it; raises as `explain`.

        Records go out in the order of these calls, at the end of the event loop's turn: a sender
        that is cancelled in the same turn has sent nothing. All senders share one event loop.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Delivered] = loop.create_future()
        self._outgoing.append((done, record))
        # Handed over without a pause between them, most go into one request: a request costs the
        # broker, and whoever reads, more than its records do.
        if len(self._outgoing) == 1:
            loop.call_soon(self._produce_waiting, loop)
        return await done

    async def close(self) -> None:
        """Wait for what is waiting and in flight, then stop the thread; what is left then fails."""
        end_s = time.monotonic() + _CLOSE_S_MAX
        while self._outgoing and time.monotonic() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_QUEUE_FULL_WAIT_S)
        await asyncio.to_thread(self._producer.flush, max(end_s - time.monotonic(), 0.0))
        self._open = False
        await asyncio.to_thread(self._thread.join)
        while self._outgoing:
            done, record = self._outgoing.popleft()
            if not done.done():
                done.set_exception(_never_sent(record))

    def _produce_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._outgoing:
            done, record = self._outgoing.popleft()
            # Who sent it may have been cancelled meanwhile.
            if done.cancelled():
                continue
            try:
                queued = self._produce(done, record, loop)
            except KafkaException as error:
                done.set_exception(self._explain(error, record.topic.name))
            except Exception as error:
                # For its sender, and not in the way of those behind it.
                done.set_exception(error)
            else:
                if not queued:
                    self._outgoing.appendleft((done, record))
                    loop.call_later(_QUEUE_FULL_WAIT_S, self._produce_waiting, loop)
                    return

    def _produce(
        self, done: asyncio.Future[Delivered], record: Outgoing, loop: asyncio.AbstractEventLoop
    ) -> bool:
        def delivered(error: KafkaError | None, message: Message) -> None:
            with self._reports_lock:
                self._reports.append((done, error, message))
                first = len(self._reports) == 1
            # Waking the loop costs more than all else: once for all that are reported together.
            if first:
                loop.call_soon_threadsafe(self._settle_reported)

        return try_produce(self._producer, self._settings, record, delivered)

    def _settle_reported(self) -> None:
        with self._reports_lock:
            reports, self._reports = self._reports, []
        for done, error, message in reports:
            self._settle(done, error, message)

    def _settle(
        self, done: asyncio.Future[Delivered], error: KafkaError | None, message: Message
    ) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(Delivered(message.partition() or 0, message.offset() or 0))
        else:
            done.set_exception(self._explain(error, message.topic() or ""))

    def _explain(self, error: KafkaError | KafkaException, topic: str) -> HeadwaterError:
        return explain(error, self._settings.bootstrap, topic)

    def _serve_callbacks(self) -> None:
        while self._open:
            try:
                self._producer.poll(_POLL_S)
            except KafkaException as error:
                # A fatal error is raised here once; the records that it failed still have to be
                # told so, and every later `send` raises it again.
                log.error("%s", self._explain(error, ""))


def _never_sent(record: Outgoing) -> DeliveryFailed:
    return DeliveryFailed(
        f"A record of {record.topic.name} was not sent: the producer closed before it had room.",
        "See whether the broker answers, then send it again.",
    )
