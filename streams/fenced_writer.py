"""Atomic writes on behalf of one partition, which only its newest owner can make.

A transactional producer whose transactional.id names the agent and the partition it works for:
opening it fences every earlier one of that name (Kafka KIP-98), so that a worker that was thought
dead cannot publish a second result after its successor took over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from schemas.errors import Fenced, NotAuthorised, RecordTooLarge
from streams.failures import explain
from streams.producer import Delivered, Outgoing, producer_config, try_produce
from streams.settings import KafkaSettings

_TRANSACTION_MS_MAX: Final = 30_000
_CALL_S_MAX: Final = 10.0
_RETRY_S_MAX: Final = 120.0
_RETRY_WAIT_S: Final = 0.1
_FENCED: Final = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}


class FencedWriter:
    """Writes groups of records that read-committed consumers see all of or nothing of."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._name = settings.group_name(name)
        self._lock = asyncio.Lock()
        self._producer: confluent_kafka.Producer | None = None
        self._refused: KafkaError | None = None

    async def open(self) -> None:
        """Become the newest owner of the name; what earlier ones had not committed is undone."""
        await asyncio.to_thread(self._open)

    async def write(self, records: Sequence[Outgoing]) -> list[Delivered]:
        """Commit all records or none, outlasting broker restarts of up to two minutes.

        Raises Fenced when a newer owner exists, and RecordTooLarge or NotAuthorised when the
        broker refuses a record for good; nothing was written then.
        """
        async with self._lock:
            return await asyncio.to_thread(self._write, records)

    def _open(self) -> None:
        config = producer_config(self._settings, linger_ms=0.0) | {
            "transactional.id": self._name,
            "transaction.timeout.ms": _TRANSACTION_MS_MAX,
            "delivery.timeout.ms": _TRANSACTION_MS_MAX,
        }
        producer = confluent_kafka.Producer(config)
        try:
            self._patiently(lambda: producer.init_transactions(_CALL_S_MAX))
        except KafkaException as error:
            raise explain(error, self._settings.bootstrap) from error
        self._producer = producer

    def _write(self, records: Sequence[Outgoing]) -> list[Delivered]:
        deadline = time.monotonic() + _RETRY_S_MAX
        while True:
            try:
                return self._transaction(records)
            except KafkaException as error:
                self._recover(error, deadline)

    def _transaction(self, records: Sequence[Outgoing]) -> list[Delivered]:
        producer = self._opened()
        delivered: list[Delivered] = []
        self._refused = None

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                delivered.append(Delivered(message.partition() or 0, message.offset() or 0))
            elif self._refused is None:
                # The first counts: to abort is to fail all others, for no reason of their own.
                self._refused = error

        producer.begin_transaction()
        for record in records:
            # A group of records may be larger than the local queue.
            while not try_produce(producer, self._settings, record, note):
                producer.poll(_RETRY_WAIT_S)
        self._patiently(lambda: producer.commit_transaction(_CALL_S_MAX))
        return delivered

    def _recover(self, failure: KafkaException, deadline: float) -> None:
        """Make the next attempt possible, or raise what ends the attempts."""
        self._give_up_if_final(failure, deadline)
        if failure.args[0].txn_requires_abort():
            self._abort(deadline)
        # Why records failed; the transaction's own error only says that some did.
        if self._refused is not None:
            reason = explain(self._refused, self._settings.bootstrap)
            if isinstance(reason, (RecordTooLarge, NotAuthorised)):
                raise reason from failure
        time.sleep(_RETRY_WAIT_S)

    def _abort(self, deadline: float) -> None:
        try:
            self._patiently(lambda: self._opened().abort_transaction(_CALL_S_MAX))
        except KafkaException as failure:
            self._give_up_if_final(failure, deadline)
            # Nothing can be begun while the last transaction cannot be ended.
            raise explain(failure, self._settings.bootstrap) from failure

    def _give_up_if_final(self, failure: KafkaException, deadline: float) -> None:
        """Raise what no further attempt can mend."""
        error: KafkaError = failure.args[0]
        if error.code() in _FENCED:
            raise Fenced(
                f"A newer worker owns {self._name}.", "Nothing to do: it will redo this work."
            ) from failure
        if error.fatal() or time.monotonic() > deadline:
            raise explain(failure, self._settings.bootstrap) from failure

    def _patiently(self, call: Callable[[], None]) -> None:
        """Repeat one transaction call while librdkafka says that it may be repeated."""
        deadline = time.monotonic() + _RETRY_S_MAX
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_WAIT_S)

    def _opened(self) -> confluent_kafka.Producer:
        if self._producer is None:
            raise Fenced(f"{self._name} is closed.", "Open it again before writing.")
        return self._producer
