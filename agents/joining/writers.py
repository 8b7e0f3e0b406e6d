"""Writing the examples and outcomes of an exchange, once each, by partition."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from opentelemetry.trace import Span

from agents.joining.exchange import Exchange, decode_feedback
from agents.joining.made_records import made_records
from agents.joining.pseudonyms import Pseudonyms
from agents.joining.written_examples import WrittenExamples
from agents.runtime.blame import is_the_records_fault
from agents.runtime.dead_letters import bury
from agents.runtime.tracing import Tracing
from schemas import headers
from schemas.errors import HeadwaterError
from schemas.topics import FEEDBACK
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings
from streams.spans import traceparent


@dataclass(slots=True)
class Place:
    """A partition that this worker writes for."""

    writer: FencedWriter
    written: WrittenExamples


class Writers:
    """One fenced writer for each partition that has had something to write."""

    def __init__(
        self, kafka: KafkaSettings, names: Pseudonyms, producer: Producer, tracing: Tracing
    ) -> None:
        self._kafka = kafka
        self._names = names
        self._producer = producer
        self._tracing = tracing
        self._places: dict[int, asyncio.Task[Place]] = {}

    def keep(self, partitions: set[int]) -> None:
        """Forget all others."""
        for lost in set(self._places) - partitions:
            self._places.pop(lost)

    async def write(self, prompt_id: str, exchange: Exchange) -> list[str]:
        """Write the examples of an exchange; returns the ids of the feedback dealt with."""
        place = await self._place(exchange.partition)
        taken: list[str] = []
        # By feedback: the id of its example, all that is written, where it came from, its span.
        new: dict[str, tuple[str | None, list[Outgoing], Record, Span]] = {}
        for record in exchange.waiting:
            feedback_id, feedback = decode_feedback(record)
            try:
                span = self._span(exchange, prompt_id, record)
                example, made = made_records(
                    exchange,
                    prompt_id,
                    feedback_id,
                    feedback,
                    record,
                    self._names,
                    traceparent(span),
                )
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
