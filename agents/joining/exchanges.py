"""The exchanges of a worker's partitions: a Faust table in RocksDB with a changelog in Kafka.

RocksDB is written at once and survives kill -9. The changelog is for another machine, and Faust
sends it some time later: `flush` returns once the broker has all of it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import faust
import msgspec
from faust.streams import _current_event
from faust.types import FutureMessage

from agents.joining.exchange import Exchange
from agents.runtime.worker import raw_topic
from schemas.errors import RecordTooLarge
from schemas.topics import EXCHANGES, FEEDBACK
from streams.settings import KafkaSettings

# RocksDB's own default is a cache of 2 GiB for each partition.
_ROCKSDB: Final = {"block_cache_size": 16 * 2**20, "write_buffer_size": 8 * 2**20}


class Exchanges:
    """Exchanges by prompt_id, oldest first; only from the event loop of the app."""

    def __init__(self, app: faust.App, kafka: KafkaSettings, partitions: int) -> None:
        self._topic = kafka.topic_name(FEEDBACK)
        self._table = _SentTable(
            app,
            name="exchanges",
            key_type=bytes,
            value_type=bytes,
            partitions=partitions,
            changelog_topic=raw_topic(app, kafka, EXCHANGES),
            on_recover=self._recovered,
            options=dict(_ROCKSDB),
        )
        app.tables.add(self._table)
        # Since when each is here, and where; and those with feedback that waits.
        self._ages: dict[str, tuple[int, int]] = {}
        self._waiting: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._ages)

    @property
    def waiting(self) -> int:
        """How many exchanges have feedback that waits."""
        return len(self._waiting)

    def get(self, partition: int, prompt_id: str) -> Exchange | None:
        with _in(self._topic, partition):
            value = self._table.get(prompt_id.encode())
        return None if value is None else _decoder.decode(value)

    def put(self, prompt_id: str, exchange: Exchange) -> None:
        """Raises RecordTooLarge, with nothing changed."""
        value = _encoder.encode(exchange)
        if len(value) > EXCHANGES.record_bytes_max:
            raise RecordTooLarge(
                f"What is known of prompt {prompt_id[:80]} has {len(value):,} bytes.",
                "Send less feedback on one answer, or shorter corrections.",
            )
        with _in(self._topic, exchange.partition):
            self._table[prompt_id.encode()] = value
        self._index(prompt_id, exchange)

    def remove(self, partition: int, prompt_id: str) -> None:
        with _in(self._topic, partition):
            self._table.pop(prompt_id.encode(), None)
        self._ages.pop(prompt_id, None)
        self._waiting.pop(prompt_id, None)

    async def flush(self) -> None:
        """Return once the changelog has everything."""
        unsent, self._table.unsent = self._table.unsent, []
        await asyncio.gather(*unsent)

    def older_than(self, time_ms: int, count_max: int) -> list[tuple[int, str]]:
        """Partition and prompt of those from before a time, and of the oldest over a count."""
        over = len(self._ages) - count_max
        found = []
        for number, (prompt_id, (partition, since_ms)) in enumerate(self._ages.items()):
            if since_ms >= time_ms and number >= over:
                break
            found.append((partition, prompt_id))
        return found

    def waiting_since_before(self, time_ms: int) -> list[tuple[int, str]]:
        """Partition and prompt of those whose feedback has waited since before a time."""
        return [(p, prompt) for prompt, (p, since) in self._waiting.items() if since < time_ms]

    def _index(self, prompt_id: str, exchange: Exchange) -> None:
        self._ages.setdefault(prompt_id, (exchange.partition, exchange.since_ms))
        self._waiting.pop(prompt_id, None)
        if exchange.waiting:
            since_ms = exchange.waiting[0].timestamp_ms
            self._waiting[prompt_id] = exchange.partition, since_ms

    async def _recovered(self) -> None:
        """The partitions have changed: which exchanges there are is read from the table."""
        self._ages, self._waiting = {}, {}
        found = [(key.decode(), _decoder.decode(value)) for key, value in self._table.items()]
        for prompt_id, exchange in sorted(found, key=lambda item: item[1].since_ms):
            self._index(prompt_id, exchange)


class _SentTable(faust.Table):
    """A table that keeps what it has sent, so that somebody can wait for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unsent: list[FutureMessage] = []

    def send_changelog(self, *arguments: Any, **options: Any) -> FutureMessage:
        sent = super().send_changelog(*arguments, **options)
        self.unsent.append(sent)
        return sent


class _Event:
    """As much of a Faust event as its tables ask: the partition that a change belongs to."""

    def __init__(self, topic: str, partition: int) -> None:
        self.message = SimpleNamespace(topic=topic, partition=partition)


@contextmanager
def _in(topic: str, partition: int) -> Iterator[None]:
    """Faust takes the partition from the event that its stream is at; ours is read already."""
    event = _Event(topic, partition)
    token = _current_event.set(weakref.ref(event))  # type: ignore[arg-type]
    try:
        yield
    finally:
        _current_event.reset(token)


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Exchange)
