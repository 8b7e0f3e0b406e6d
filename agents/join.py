"""feedback → examples, outcomes: feedback with the prompt and the answer that it is about.

Contexts, generations and feedback are keyed by prompt_id and have equally many partitions, so one
worker sees all three of a prompt, in any order. For each record:
1. bring what is known of its prompt up to date, in memory,
2. once prompt and answer are known, write the examples of all its feedback in one transaction,
   less those that a predecessor wrote (`written_examples`),
3. put the exchange into the table, and wait until its changelog has it,
4. acknowledge, so that the offset may be committed.
A worker killed before 2 leaves nothing behind; killed after it, its successor finds the examples.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from agents.joining.exchange import (
    Exchange,
    answered,
    asked,
    decode_feedback,
)
from agents.joining.exchanges import Exchanges
from agents.joining.pseudonyms import Pseudonyms, open_pseudonyms
from agents.joining.writers import Writers
from agents.runtime.blame import is_the_records_fault
from agents.runtime.dead_letters import bury
from agents.runtime.identity import event_id
from agents.runtime.intake import Intake, Taken
from agents.runtime.read_committed import read_committed
from agents.runtime.tracing import make_tracing
from agents.runtime.worker import follow_assignment, make_app, raw_topic, run
from agents.settings import JoinSettings, WorkerSettings
from schemas import codec, headers
from schemas.clock import now_ms
from schemas.errors import EventInvalid, Fenced, SettingsInvalid
from schemas.topics import (
    CONTEXTS,
    DAY_MS,
    EXCHANGES,
    FEEDBACK,
    GENERATIONS,
)
from streams.admin import partition_count
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

_BATCH_RECORDS_MAX: Final = 64
_SWEEP_INTERVAL_S: Final = 5.0
# Ids of feedback remembered of one answer; more than that is no person's doing.
_TAKEN_MAX: Final = 1_000

log = logging.getLogger("headwater.join")


class Join:
    """The state of one join worker: the exchanges of its partitions, and who writes for them."""

    def __init__(
        self, kafka: KafkaSettings, exchanges: Exchanges, names: Pseudonyms, settings: JoinSettings
    ) -> None:
        self._exchanges = exchanges
        self._settings = settings
        self._tracing = make_tracing("join")
        self._producer = Producer(kafka)
        self._writers = Writers(kafka, names, self._producer, self._tracing)
        self._owned: set[int] = set()
        self._takes = {
            kafka.topic_name(CONTEXTS): self._take_context,
            kafka.topic_name(GENERATIONS): self._take_generation,
            kafka.topic_name(FEEDBACK): self._take_feedback,
        }
        # Records and the sweep change exchanges in turn.
        self._turn = asyncio.Lock()
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Process records for ever."""
        self.ready.set()
        async for batch in self.intake.batches(_BATCH_RECORDS_MAX):
            async with self._turn:
                # 1. and 2.
                done = [taken for taken in batch if await self._take(taken)]
                # 3.
                await self._exchanges.flush()
            for taken in done:
                # 4.
                await taken.done()

    async def sweep(self) -> None:
        """Bury feedback that waits for too long, and forget old exchanges, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            async with self._turn:
                await self._bury_waiting()
                self._forget()
                await self._exchanges.flush()

    def owns(self, partitions: set[int]) -> None:
        """The partitions that this worker has from now on."""
        self.intake.owns(partitions)
        self._owned = partitions
        self._writers.keep(partitions)

    async def close(self) -> None:
        """Leave the broker."""
        await self._producer.close()
        await self._tracing.close()

    async def _take(self, taken: Taken) -> bool:
        """Whether the record is dealt with; not where its partition went to another worker."""
        record = taken.record
        try:
            if record.partition in self._owned:
                await self._takes[record.topic](record)
        except Fenced as error:
            if record.partition in self._owned:
                # Overtaken without a rebalance: a new start reads on from the committed offset.
                raise
            log.warning("%s", error)
            return False
        except Exception as error:
            if not is_the_records_fault(error):
                raise
            await bury(self._producer, record, "join", error)
        return record.partition in self._owned

    async def _take_context(self, record: Record) -> None:
        if record.value is None:
            # A cancelled prompt has a finished record too, which says so.
            return
        context = codec.decode(CONTEXTS, record.value)
        exchange = self._known(record, context.prompt_id)
        if exchange.messages is None:
            await self._settle(context.prompt_id, asked(exchange, context))

    async def _take_generation(self, record: Record) -> None:
        generation = codec.decode(GENERATIONS, record.value or b"")
        exchange = self._known(record, generation.prompt_id)
        if exchange.answered is None:
            trace = headers.header(record.headers, "traceparent")
            await self._settle(generation.prompt_id, answered(exchange, generation, trace))

    async def _take_feedback(self, record: Record) -> None:
        feedback_id, feedback = decode_feedback(record)
        prompt_id = event_id(record, feedback.prompt_id)
        exchange = self._known(record, prompt_id)
        if feedback_id in exchange.taken:
            return
        if not exchange.complete:
            self._check_room(exchange)
        waiting = [*exchange.waiting, record]
        await self._settle(prompt_id, msgspec.structs.replace(exchange, waiting=waiting))

    def _known(self, record: Record, prompt_id: str) -> Exchange:
        found = self._exchanges.get(record.partition, prompt_id)
        return found or Exchange(record.partition, record.timestamp_ms)

    def _check_room(self, exchange: Exchange) -> None:
        settings = self._settings
        full = not exchange.waiting and self._exchanges.waiting >= settings.waiting_max
        if full or len(exchange.waiting) >= settings.waiting_per_answer_max:
            raise EventInvalid(
                "Too much feedback waits for answers that are not known.",
                "Is generate behind? Replay it with `headwater dead-letters replay`.",
            )

    async def _settle(self, prompt_id: str, exchange: Exchange) -> None:
        """Make examples of what waits, if all is known, and keep the exchange."""
        if exchange.complete and exchange.waiting:
            taken = await self._writers.write(prompt_id, exchange)
            exchange = msgspec.structs.replace(
                exchange, waiting=[], taken=[*exchange.taken, *taken][-_TAKEN_MAX:]
            )
        self._exchanges.put(prompt_id, exchange)

    async def _bury_waiting(self) -> None:
        before_ms = now_ms() - round(1_000 * self._settings.wait_s)
        for partition, prompt_id in self._exchanges.waiting_since_before(before_ms):
            exchange = self._exchanges.get(partition, prompt_id)
            if exchange is None or partition not in self._owned:
                continue
            error = EventInvalid(
                f"No answer to prompt {prompt_id[:80]} came in {self._settings.wait_s:g} s.",
                "Is the prompt_id right? If the answer came since, replay the dead letter.",
            )
            for record in exchange.waiting:
                await bury(self._producer, record, "join", error)
            self._exchanges.put(prompt_id, msgspec.structs.replace(exchange, waiting=[]))

    def _forget(self) -> None:
        settings = self._settings
        before_ms = now_ms() - round(DAY_MS * settings.remembered_days)
        for partition, prompt_id in self._exchanges.older_than(before_ms, settings.remembered_max):
            if partition in self._owned:
                self._exchanges.remove(partition, prompt_id)


def main() -> None:
    """Run one join worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(JoinSettings)
    folder = settings.folder.expanduser().absolute()
    partitions = _checked_partitions(kafka)
    app = make_app(
        "join",
        kafka,
        worker,
        datadir=folder,
        store="rocksdb://",
        producer_max_request_size=EXCHANGES.batch_bytes_max,
        table_standby_replicas=0,
    )
    read_committed(app)
    join = Join(kafka, Exchanges(app, kafka, partitions), open_pseudonyms(settings), settings)
    records = raw_topic(app, kafka, CONTEXTS, GENERATIONS, FEEDBACK)
    app.agent(records, name="join")(join.intake.fill)
    follow_assignment(app, records, join.owns)
    run(app, worker, [join.work, join.sweep], join.ready.wait, join.close)


def _checked_partitions(kafka: KafkaSettings) -> int:
    topics = (CONTEXTS, GENERATIONS, FEEDBACK, EXCHANGES)
    counts = {topic.name: partition_count(kafka, topic) for topic in topics}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise SettingsInvalid(
            f"These topics must have equally many partitions: {found}.",
            "Give all four the same number: a prompt's records share a partition.",
        )
    return counts[FEEDBACK.name]


if __name__ == "__main__":
    main()
