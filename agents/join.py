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
from dataclasses import dataclass
from typing import Final

import msgspec
from opentelemetry.trace import Span

from agents.joining.exchange import (
    Exchange,
    answered,
    asked,
    decode_feedback,
    make_example,
    teaches,
)
from agents.joining.exchanges import Exchanges
from agents.joining.outcomes import make_outcome
from agents.joining.pseudonyms import Pseudonyms, open_pseudonyms
from agents.joining.written_examples import WrittenExamples
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
from schemas.errors import EventInvalid, Fenced, HeadwaterError, SettingsInvalid
from schemas.events import Event, Feedback
from schemas.topics import (
    CONTEXTS,
    DAY_MS,
    EXAMPLES,
    EXCHANGES,
    FEEDBACK,
    GENERATIONS,
    OUTCOMES,
    Topic,
)
from streams.admin import partition_count
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings, load
from streams.spans import traceparent

SOURCE: Final = "/agents/join"
_BATCH_RECORDS_MAX: Final = 64
_SWEEP_INTERVAL_S: Final = 5.0
# Ids of feedback remembered of one answer; more than that is no person's doing.
_TAKEN_MAX: Final = 1_000

log = logging.getLogger("headwater.join")


@dataclass(slots=True)
class Place:
    """A partition that this worker writes for."""

    writer: FencedWriter
    written: WrittenExamples


class Join:
    """The state of one join worker: the exchanges of its partitions, and who writes for them."""

    def __init__(
        self, kafka: KafkaSettings, exchanges: Exchanges, names: Pseudonyms, settings: JoinSettings
    ) -> None:
        self._kafka = kafka
        self._exchanges = exchanges
        self._names = names
        self._settings = settings
        self._tracing = make_tracing("join")
        self._producer = Producer(kafka)
        self._owned: set[int] = set()
        self._places: dict[int, asyncio.Task[Place]] = {}
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
        for lost in set(self._places) - partitions:
            self._places.pop(lost)

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
            taken = await self._write(prompt_id, exchange)
            exchange = msgspec.structs.replace(
                exchange, waiting=[], taken=[*exchange.taken, *taken][-_TAKEN_MAX:]
            )
        self._exchanges.put(prompt_id, exchange)

    async def _write(self, prompt_id: str, exchange: Exchange) -> list[str]:
        """Write the examples of an exchange; returns the ids of the feedback dealt with."""
        place = await self._place(exchange.partition)
        taken: list[str] = []
        # By feedback: the id of its example, all that is written, where it came from, its span.
        new: dict[str, tuple[str | None, list[Outgoing], Record, Span]] = {}
        for record in exchange.waiting:
            feedback_id, feedback = decode_feedback(record)
            try:
                span = self._span(exchange, prompt_id, record)
                example, made = self._made(exchange, prompt_id, feedback_id, feedback, record, span)
            except HeadwaterError as error:
                if not is_the_records_fault(error):
                    raise
                await bury(self._producer, record, "join", error)
                continue
            taken.append(feedback_id)
            # What is no example is learned from once by adapt, which knows the ids.
            if example is None or not await place.written.holds(example, record.timestamp_ms):
                new[feedback_id] = example, made, record, span
        if new:
            await place.writer.write([record for _, made, _, _ in new.values() for record in made])
        for example, _, record, span in new.values():
            if example is not None:
                place.written.note(example, record.timestamp_ms)
            span.end()
        return taken

    def _made(
        self,
        exchange: Exchange,
        prompt_id: str,
        feedback_id: str,
        feedback: Feedback,
        record: Record,
        span: Span,
    ) -> tuple[str | None, list[Outgoing]]:
        """The id of the example that feedback makes, if it makes one, and all that is written."""
        came = exchange.trace or headers.header(record.headers, "traceparent")
        trace = traceparent(span) or headers.child_traceparent(came)
        example, written = None, []
        if teaches(feedback):
            example = make_example(exchange, prompt_id, feedback_id, feedback, self._names)
            written.append(_outgoing(EXAMPLES, example, example.example_id, example.user, trace))
        outcome = make_outcome(
            exchange, prompt_id, feedback_id, feedback, example, self._names, record.timestamp_ms
        )
        name = outcome.outcome_id
        written.append(_outgoing(OUTCOMES, outcome, name, name, trace))
        return example.example_id if example else None, written

    def _span(self, exchange: Exchange, prompt_id: str, record: Record) -> Span:
        """Feedback belongs to the trace of its prompt; the one that it came with is linked."""
        came = headers.header(record.headers, "traceparent")
        links = [came] if came and exchange.trace else []
        span = self._tracing.process(FEEDBACK, exchange.trace or came, links)
        span.set_attribute("headwater.prompt_id", prompt_id)
        if exchange.answered is not None:
            span.set_attribute("headwater.model_version", exchange.answered.model_version)
        return span

    async def _place(self, partition: int) -> Place:
        if partition not in self._places:
            self._places[partition] = asyncio.create_task(self._open_place(partition))
        return await self._places[partition]

    async def _open_place(self, partition: int) -> Place:
        # First the writer: once predecessors are fenced, what they wrote does not change any more.
        writer = FencedWriter(self._kafka, f"join.{partition}")
        await writer.open()
        return Place(writer, WrittenExamples(self._kafka))

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


def _outgoing(topic: Topic, event: Event, event_id: str, key: str, trace: str | None) -> Outgoing:
    made = headers.make_headers(topic, event_id, SOURCE, trace)
    return Outgoing(topic, key, codec.checked(topic, event), made)


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
