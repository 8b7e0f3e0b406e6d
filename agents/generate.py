"""contexts → tokens and generations: the answer, while it is made and for good.

For each prompt, in an order that must not change:
1. look whether a predecessor finished it already; then go on at 4,
2. stream chunks to the prompt's reply partition,
3. commit the finished record, which only the partition's owner can,
4. send the last chunk, which carries that record,
5. acknowledge, so that the offset may be committed.
A worker killed before 3 leaves nothing behind; killed after it, its successor goes on at 4.
Cancels do not wait for their turn (`cancels`); adapters are swapped beside it all (`updates`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial

from agents.generation.cancels import Cancels
from agents.generation.chunks import ChunkSender, Part
from agents.generation.draft import Draft, write_answer
from agents.generation.engines import make_engine
from agents.generation.finals import Finals
from agents.generation.fitting import shrunk
from agents.generation.owned_finals import OwnedFinals
from agents.generation.replies import Replies, headers_of
from agents.generation.span import describe, generation_span
from agents.generation.updates import Updates
from agents.runtime.blame import is_the_records_fault
from agents.runtime.dead_letters import bury
from agents.runtime.identity import event_id
from agents.runtime.intake import Intake, Taken
from agents.runtime.metrics import MetricsPage
from agents.runtime.tracing import Tracing, make_tracing
from agents.runtime.worker import follow_assignment, make_app, raw_topic, run
from agents.settings import GenerateSettings, WorkerSettings
from models.engine.protocol import Engine
from schemas import codec, headers
from schemas.clock import now_ms
from schemas.errors import EventInvalid, Fenced, RecordTooLarge, SettingsInvalid
from schemas.events import Context, Generation
from schemas.headers import Headers
from schemas.topics import CONTEXTS, GENERATIONS, MODEL_UPDATES, TOKENS
from streams.admin import partition_count
from streams.producer import Producer
from streams.racing import unless_set
from streams.records import Record
from streams.settings import KafkaSettings, load
from streams.spans import traceparent

log = logging.getLogger("headwater.generate")


@dataclass(slots=True)
class InFlight:
    """A prompt that this worker has taken on; `twin` is an earlier record of the same prompt."""

    taken: Taken
    context: Context
    traceparent: str
    twin: asyncio.Task[None] | None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Generate:
    """The state of one generate worker: the engine, its partitions, the prompts in flight."""

    def __init__(
        self,
        kafka: KafkaSettings,
        engine: Engine,
        settings: GenerateSettings,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or make_tracing("generate")
        self._engine = engine
        self._settings = settings
        self._producer = Producer(kafka)
        self._replies = Replies(self._producer, partition_count(kafka, TOKENS))
        self._owned: set[int] = set()
        self._finals = OwnedFinals(kafka)
        self._in_flight: dict[str, InFlight] = {}
        # The partition of each answer that is being made.
        self._answers: dict[asyncio.Task[None], int] = {}
        self._working: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(settings.in_flight_max)
        self._page: MetricsPage | None = None
        self.updates = Updates(
            kafka,
            self._producer,
            engine,
            settings.adapters_folder,
            settings.adapters_wait_s,
            settings.added_adapter,
        )
        self.cancels = Cancels(kafka, "generate", self._cancel)
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Load model and adapters, then take on prompts while there is room; ends only by an
        exception."""
        self._working = asyncio.current_task()
        await self._engine.start()
        self._show_metrics()
        async with asyncio.TaskGroup() as answers:
            answers.create_task(self.updates.follow())
            answers.create_task(self.updates.bury_refused())
            await self.updates.ready.wait()
            self.ready.set()
            async for (taken,) in self.intake.batches(1):
                if taken.record.value is None:
                    self._cancel(taken.record)
                    self.cancels.reached(taken.record)
                    await taken.done()
                elif (flight := await self._decode(taken)) is not None:
                    await self._room.acquire()
                    flight.task = answers.create_task(self._answer(flight))
                    self._answers[flight.task] = taken.record.partition
                    flight.task.add_done_callback(partial(self._land, flight))

    async def close(self) -> None:
        """Leave what is in flight to the next owner, stop the engine and the producer."""
        # First the answers: an engine that closes under them would look like a failed answer.
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait({self._working})
        await self.updates.close()
        if self._page is not None:
            await self._page.close()
        await self._engine.close()
        await self._producer.close()
        await self._tracing.close()

    def owns(self, partitions: set[int]) -> None:
        """The partitions of `contexts` that this worker has from now on."""
        self.intake.owns(partitions)
        self.cancels.owns(partitions)
        self._owned = partitions
        for answer, partition in self._answers.items():
            if partition not in partitions:
                # Its new owner makes it too, and this one's record would be refused.
                answer.cancel()
        self._finals.owns(partitions)

    def _show_metrics(self) -> None:
        port, host = self._settings.metrics_port, self._settings.metrics_host
        if port is not None:
            registries = self._engine.metrics, self.updates.metrics.registry
            self._page = MetricsPage(host, port, *registries)

    def _cancel(self, tombstone: Record) -> None:
        flight = self._in_flight.get(tombstone.key_text or "")
        # A prompt published again after it was cancelled is wanted.
        if flight is not None and tombstone.offset > flight.taken.record.offset:
            flight.cancelled.set()

    def _land(self, flight: InFlight, answer: asyncio.Task[None]) -> None:
        del self._answers[answer]
        if self._in_flight.get(flight.context.prompt_id) is flight:
            del self._in_flight[flight.context.prompt_id]
        self._room.release()

    async def _decode(self, taken: Taken) -> InFlight | None:
        try:
            context: Context = codec.decode(CONTEXTS, taken.record.value or b"")
            event_id(taken.record, context.prompt_id)
        except EventInvalid as error:
            await bury(self._producer, taken.record, "generate", error)
            await taken.done()
            return None
        trace = headers.child_traceparent(headers.header(taken.record.headers, "traceparent"))
        earlier = self._in_flight.get(context.prompt_id)
        flight = InFlight(taken, context, trace, earlier.task if earlier else None)
        if earlier is not None:
            # Whoever cancels the one means the other too.
            flight.cancelled = earlier.cancelled
        if self.cancels.cover(taken.record, context.prompt_id):
            flight.cancelled.set()
        self._in_flight[context.prompt_id] = flight
        return flight

    async def _answer(self, flight: InFlight) -> None:
        context, partition = flight.context, flight.taken.record.partition
        try:
            if flight.twin is not None:
                await asyncio.wait({flight.twin})
            if partition not in self._owned:
                # To open its finals would fence the new owner.
                return
            finals = await self._finals.of(partition)
            # 1. A predecessor, or a twin of this record, may have finished it.
            generation = await finals.find(context.prompt_id, context.prompted_ms)
            attempt, index, rest = now_ms(), 0, Part(generation.text if generation else "")
            if generation is None:
                came = headers.header(flight.taken.record.headers, "traceparent")
                remote = self._settings.engine == "remote"
                model = self._engine.model
                with generation_span(self._tracing, context, model, came, remote=remote) as span:
                    flight.traceparent = traceparent(span) or flight.traceparent
                    # 2. and 3.
                    generation, index, rest = await self._write(flight, finals, attempt)
                    describe(span, generation)
            # 4.
            wanted = context.prompt.reply_partition
            await self._replies.end(generation, attempt, index, rest, wanted, flight.traceparent)
            # 5.
            await flight.taken.done()
        except Fenced as error:
            # The new owner reads this prompt again from the committed offset.
            log.warning("%s", error)
        except Exception as error:
            if not is_the_records_fault(error):
                raise
            await bury(self._producer, flight.taken.record, "generate", error)
            await flight.taken.done()

    async def _write(
        self, flight: InFlight, finals: Finals, attempt: int
    ) -> tuple[Generation, int, Part]:
        """Answer and commit; returns the finished record, and index and part of the last chunk."""
        engine, passages_max = self._engine, self._settings.passages_shown_max
        draft = Draft(flight.context, engine.model, engine.model_version, attempt)

        async def send(index: int, part: Part) -> None:
            try:
                wanted = flight.context.prompt.reply_partition
                await self._replies.send(draft.chunk(index, part), wanted, flight.traceparent)
            except RecordTooLarge as error:
                # A reader bridges the gap with the finished record.
                log.warning("a chunk of %s was left out: %s", draft.generation_id, error)

        # 2.
        sender = ChunkSender(send, self._settings.chunk_interval_ms)
        try:
            if not flight.cancelled.is_set():
                await unless_set(
                    flight.cancelled, write_answer(draft, engine, passages_max, sender.add)
                )
        finally:
            rest = await sender.finish()
        # 3.
        generation = draft.finished()
        made = headers_of(GENERATIONS, generation.generation_id, flight.traceparent)
        generation = await self._commit(flight, finals, generation, made)
        return generation, sender.sent, rest

    async def _commit(
        self, flight: InFlight, finals: Finals, generation: Generation, made: Headers
    ) -> Generation:
        """Commit the finished record; where another got there first, its record counts."""
        partition = flight.taken.record.partition
        while True:
            try:
                await finals.publish(generation, made)
                return generation
            except RecordTooLarge as error:
                generation = shrunk(generation, error)
                continue
            except Fenced:
                if partition not in self._owned:
                    raise
            # Ours again after a rebalance, or the broker gave up a transaction that took too long.
            finals = await self._finals.after(partition, finals)
            found = await finals.find(generation.prompt_id, generation.timings.prompted_ms)
            if found is not None:
                return found


def main() -> None:
    """Run one generate worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(GenerateSettings)
    _check_partitions(kafka)
    generate = Generate(kafka, make_engine(settings), settings)
    app = make_app("generate", kafka, worker)
    contexts, updates = raw_topic(app, kafka, CONTEXTS), raw_topic(app, kafka, MODEL_UPDATES)
    app.agent(contexts, name="generate")(generate.intake.fill)
    app.agent(updates, name="refused-updates")(generate.updates.intake.fill)
    follow_assignment(app, contexts, generate.owns)
    follow_assignment(app, updates, generate.updates.intake.owns)
    run(app, worker, [generate.work, generate.cancels.follow], generate.ready.wait, generate.close)


def _check_partitions(kafka: KafkaSettings) -> None:
    counts = partition_count(kafka, CONTEXTS), partition_count(kafka, GENERATIONS)
    if counts[0] != counts[1]:
        raise SettingsInvalid(
            f"contexts has {counts[0]} partitions and generations {counts[1]}.",
            "Give both topics the same number: a prompt's finished record shares its partition.",
        )
