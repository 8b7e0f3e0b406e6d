"""Reading partitions without a consumer group: every reader sees every record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Literal

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

from schemas.errors import DeliveryFailed, HeadwaterError, TopicMissing
from schemas.topics import Topic
from streams.failures import explain
from streams.records import Record, from_message
from streams.settings import KafkaSettings
from streams.watermarks import watermarks

# Where to start: an offset by partition (those not named start at their beginning), or one end.
Start = Literal["earliest", "latest"] | Mapping[int, int]

_BATCH_RECORDS_MAX: Final = 500
# Batches that wait for a slow reader before the thread stops reading: bounded, law 8.
_BATCHES_WAITING_MAX: Final = 8
_POLL_S: Final = 0.1
# An empty answer tells where a partition ends, and costs the broker half a millisecond: short waits
# until all is read, longer ones once nothing new has come for a second.
_QUIET_POLLS: Final = 10
_PATIENT: Final = {"fetch.wait.max.ms": 500}


def consumer_config(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """librdkafka's settings that every consumer of ours shares."""
    return settings.client_config() | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 50,
        "auto.offset.reset": "earliest",
    }


class Follower:
    """Follows some partitions of one topic in a thread of its own; hand over by bounded queue.

    `caught_up` turns true once the reader has taken everything up to what was the end of each
    partition when reading got there.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: Topic,
        start: Start = "latest",
        partitions: Sequence[int] | None = None,
    ) -> None:
        self._settings = settings
        self._name = settings.topic_name(topic)
        self._start = start
        self._wanted = partitions
        self._queue: asyncio.Queue[list[Record] | HeadwaterError] = asyncio.Queue()
        self._room = threading.Semaphore(_BATCHES_WAITING_MAX)
        self._open = True
        # The thread's own: what it reads next, and where it was not at the end yet.
        self._next: dict[int, int] = {}
        self._behind: set[int] = set()
        self.positions: dict[int, int] = {}
        self.caught_up = False

    async def open(self) -> None:
        """Find the partitions, fix where reading starts, start reading.

        After it returns, nothing published later is missed. Raises as `explain`.
        """
        self._loop = asyncio.get_running_loop()
        config = consumer_config(self._settings, self._settings.group_name("follower"))
        self._config = config | {"enable.partition.eof": True}
        self._consumer = confluent_kafka.Consumer(self._config)
        try:
            await asyncio.to_thread(self._assign)
        except BaseException:
            self._consumer.close()
            raise
        self._thread = threading.Thread(
            target=self._read_on, name="headwater-follower", daemon=True
        )
        self._thread.start()

    async def batch(self) -> list[Record]:
        """The next records, in order within each partition; an empty batch says: caught up."""
        item = await self._queue.get()
        if isinstance(item, HeadwaterError):
            raise item
        self._room.release()
        self.caught_up = self.caught_up or not item
        for record in item:
            self.positions[record.partition] = record.offset + 1
        return item

    async def until_caught_up(self) -> AsyncIterator[Record]:
        """Every record up to the end; what comes later stays for `batch`."""
        while not self.caught_up:
            for record in await self.batch():
                yield record

    async def catch_up(self, take: Callable[[Record], None]) -> None:
        """Opens, and hands over all that is there."""
        await self.open()
        async for record in self.until_caught_up():
            take(record)

    async def feed(self, take: Callable[[Record], None]) -> None:
        """Hands over each record from here on, for ever."""
        while True:
            for record in await self.batch():
                take(record)

    async def close(self) -> None:
        """Stop the thread and leave the broker."""
        self._open = False
        if hasattr(self, "_thread"):
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._consumer.close)

    def _assign(self) -> None:
        timeout_s = self._settings.connect_timeout_s
        try:
            found = self._consumer.list_topics(self._name, timeout=timeout_s).topics[self._name]
            if found.error is not None:
                raise explain(found.error, self._settings.bootstrap, self._name)
            partitions = list(found.partitions) if self._wanted is None else list(self._wanted)
            named = set(self._start) if isinstance(self._start, Mapping) else set()
            if missing := (set(partitions) | named) - set(found.partitions):
                raise TopicMissing(
                    f"{self._name} has {len(found.partitions)} partitions; there is no "
                    f"{', '.join(map(str, sorted(missing)))}.",
                    "Name a partition that exists; `headwater topics` lists them.",
                )
            for partition in partitions:
                self.positions[partition] = self._first_offset(partition, timeout_s)
        except KafkaException as error:
            raise explain(error, self._settings.bootstrap, self._name) from error
        self._next = dict(self.positions)
        self._consumer.assign(self._places())

    def _first_offset(self, partition: int, timeout_s: float) -> int:
        start = self._start
        if isinstance(start, Mapping):
            offset = start.get(partition, OFFSET_BEGINNING)
        else:
            offset = OFFSET_BEGINNING if start == "earliest" else OFFSET_END
        if offset >= 0:
            return offset
        # A real offset, so that a position taken before the first record is one to resume from.
        low, high = watermarks(self._consumer, TopicPartition(self._name, partition), timeout_s)
        return low if offset == OFFSET_BEGINNING else high

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self._name, p, offset) for p, offset in self._next.items()]

    def _read_on(self) -> None:
        try:
            self._read()
        except Exception as error:
            # A thread that ends in silence would leave its reader waiting for ever.
            name, bootstrap = self._name, self._settings.bootstrap
            if isinstance(error, KafkaException):
                self._hand_over(explain(error, bootstrap, name))
            else:
                why = f"Following {name} failed: {type(error).__name__}: {error}."
                self._hand_over(DeliveryFailed(why, "See the traceback; then start again."))
                raise

    def _read(self) -> None:
        self._behind = set(self._next)
        told, patient, quiet_polls = False, False, 0
        while self._open:
            messages = _messages(self._consumer)
            self._take(messages)
            if not told and not self._behind:
                told = True
                self._hand_over([])
            quiet_polls = 0 if messages else quiet_polls + 1
            if told and not patient and quiet_polls >= _QUIET_POLLS:
                patient = True
                self._become_patient()

    def _take(self, messages: Sequence[confluent_kafka.Message]) -> None:
        """Hands over the records among them; raises KafkaException for what does not pass."""
        records = []
        for message in messages:
            error = message.error()
            partition, offset = _place(message)
            if error is None:
                records.append(from_message(message))
                self._next[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind marks of transactions, which are no records.
                self._next[partition] = offset
                self._behind.discard(partition)
            elif not _passes(error):
                raise KafkaException(error)
        if records:
            self._hand_over(records)

    def _become_patient(self) -> None:
        """Goes on with a consumer that lets the broker wait longer for what comes next.

        The one before reads on until the other has come as far, so that nothing waits meanwhile.
        """
        try:
            successor = confluent_kafka.Consumer(self._config | _PATIENT)
        except KafkaException:
            return  # As when a certificate is being replaced: the one that works goes on.
        unused = successor
        try:
            got = self._read_beside(successor)
            if got is not None:
                unused, self._consumer = self._consumer, successor
                self._take([m for m in got if _place(m)[1] >= self._next[_place(m)[0]]])
        finally:
            unused.close()

    def _read_beside(
        self, successor: confluent_kafka.Consumer
    ) -> list[confluent_kafka.Message] | None:
        """Reads on until another consumer that begins here has come as far or further; returns what
        that one got, None if it cannot read."""
        successor.assign(self._places())
        got: list[confluent_kafka.Message] = []
        reached = dict.fromkeys(self._next, -1)
        while self._open and any(reached[p] < offset for p, offset in self._next.items()):
            self._take(_messages(self._consumer))
            for message in successor.consume(_BATCH_RECORDS_MAX, timeout=0):
                error = message.error()
                partition, offset = _place(message)
                if error is None:
                    got.append(message)
                    reached[partition] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached[partition] = offset
                elif not _passes(error):
                    return None
        return got

    def _hand_over(self, item: list[Record] | HeadwaterError) -> None:
        while not self._room.acquire(timeout=_POLL_S):
            if not self._open:  # Nobody reads any more.
                return
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # The loop is closed: nobody reads any more.
            self._open = False


def _messages(consumer: confluent_kafka.Consumer) -> list[confluent_kafka.Message]:
    """What comes within a moment, and all that is there with it."""
    first = consumer.poll(_POLL_S)
    return [] if first is None else [first, *consumer.consume(_BATCH_RECORDS_MAX - 1, timeout=0)]


def _place(message: confluent_kafka.Message) -> tuple[int, int]:
    """Partition and offset."""
    return message.partition() or 0, message.offset() or 0


def _passes(error: KafkaError) -> bool:
    """Whether librdkafka goes on by itself."""
    return error.retriable() or error.code() in _PASSING


# While a broker restarts librdkafka reports these and reconnects by itself.
_PASSING: Final = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
