"""The SDK: publish events to the river, ask it, follow what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from schemas import codec, headers, ids, limits
from schemas.errors import ClientClosed, EventInvalid
from schemas.events import Document, Event, Feedback, Message, Prompt, Retrieval, Sampling
from schemas.topics import BY_NAME, DOCUMENTS, FEEDBACK, PROMPTS, TOKENS, Topic
from streams.admin import check_connection
from streams.answer import Answer
from streams.bulk_producer import BulkProducer
from streams.producer import Delivered, Outgoing, Producer
from streams.replies import OnResumed, Replies
from streams.resumes import ResumedReplies, Resumes
from streams.settings import KafkaSettings, load
from streams.spans import SendSpans
from streams.subscription import Since, Subscription

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

SILENCE_S_MAX = 120.0


class Client:
    """Use as `async with Client() as client`. Settings come from `HEADWATER_KAFKA_*`.

    Every publishing call returns once the broker has the record (all in-sync replicas), and raises
    BrokerUnreachable, NotAuthorised, TopicMissing, RecordTooLarge, EventInvalid or DeliveryFailed;
    ClientClosed outside of `async with`.
    """

    def __init__(
        self,
        settings: KafkaSettings | None = None,
        source: str = "/sdk/python",
        on_resumed: OnResumed | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`on_resumed` is called whenever somebody `resume`s an answer that this client reads; with
        an OpenTelemetry `tracer` every record that is sent alone has a span."""
        self.settings = settings or load(KafkaSettings)
        self._source = source
        self._on_resumed = on_resumed
        self._spans = None if tracer is None else SendSpans(tracer)
        self._resumes: Resumes | None = None
        self._producer: Producer | None = None
        self._replies: Replies | None = None
        self._bulk: BulkProducer | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Client:
        await asyncio.to_thread(check_connection, self.settings)
        self._producer = Producer(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        replies, producer, resumes = self._replies, self._producer, self._resumes
        self._replies = self._producer = self._bulk = self._resumes = None
        if resumes is not None:
            await resumes.close()
        if replies is not None:
            await replies.close()
        if producer is not None:
            await producer.close()

    async def publish_document(self, document: Document | str, **fields: Any) -> str:
        """Publish one document (an event, or its text and fields); returns its document_id."""
        if isinstance(document, str):
            document = Document(text=document, **fields)
        document_id = document.document_id or ids.new_id("document")
        await self._send(DOCUMENTS, document_id, document)
        return document_id

    async def publish_documents(self, documents: Iterable[Document]) -> int:
        """Publish many documents at the full rate of the broker; returns how many."""
        return await self._send_all(DOCUMENTS, self._documents(documents))

    async def delete_document(self, document_id: str) -> None:
        """Make a document and its passages irretrievable."""
        await self._send(DOCUMENTS, document_id, None)

    async def publish_prompt(self, prompt: Prompt, traceparent: str | None = None) -> str:
        """Publish a prompt without waiting for its answer; returns its prompt_id."""
        prompt_id = prompt.prompt_id or ids.new_id("prompt")
        await self._send(PROMPTS, prompt_id, prompt, traceparent)
        return prompt_id

    async def publish_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Publish many prompts, each with a prompt_id of its own or a new one; returns how many."""
        return await self._send_all(PROMPTS, self._prompts(prompts))

    async def ask(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        *,
        sampling: Sampling | None = None,
        retrieval: Retrieval | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        prompt_id: str | None = None,
        silence_s_max: float = SILENCE_S_MAX,
        adapt: bool = True,
        traceparent: str | None = None,
    ) -> Answer:
        """Publish a prompt and follow its answer: `async for delta in await client.ask("…")`.

        With `adapt` false it is answered with exactly these options, whatever is on trial.
        """
        self._opened()
        replies = await self._open_replies()
        prompt_id = prompt_id or ids.new_id("prompt")
        prompt = Prompt(
            messages=_messages(messages),
            prompt_id=prompt_id,
            sampling=sampling or Sampling(),
            retrieval=retrieval or Retrieval(),
            user_id=user_id,
            conversation_id=conversation_id,
            reply_partition=replies.partition,
            adapt=adapt,
        )
        answer = Answer(prompt_id, replies, self.cancel, silence_s_max)
        answer.place = replies.place
        try:
            answer.prompted = await self._send(PROMPTS, prompt_id, prompt, traceparent)
        except BaseException:
            replies.forget(answer.generation_id)
            raise
        return answer

    async def resume(
        self,
        prompt_id: str,
        place: tuple[int, int],
        silence_s_max: float = SILENCE_S_MAX,
        *,
        prompted: Delivered | None = None,
    ) -> Answer:
        """Read an answer again from its beginning, and on: `place` is its `Answer.place`.

        Other processes that read it are told by `on_resumed`. Chunks are kept for an hour.
        """
        partition, offset = place
        self._opened()
        if self._resumes is None:
            self._resumes = Resumes(self.settings, self._on_resumed)
        replies = ResumedReplies(self._resumes, prompt_id, partition, offset)
        answer = Answer(prompt_id, replies, self.cancel, silence_s_max)
        answer.place, answer.prompted = place, prompted
        try:
            told = await self._send(TOKENS, prompt_id, None, partition=partition)
        except BaseException:
            replies.forget(answer.generation_id)
            raise
        answer.resumed_at = told.offset
        return answer

    async def check(self) -> None:
        """Raises as `__aenter__` where the broker cannot be used, or replies come no more."""
        self._opened()
        if (failed := (await self._open_replies()).failed) is not None:
            raise failed
        await asyncio.to_thread(check_connection, self.settings)

    async def cancel(self, prompt_id: str) -> None:
        """Stop a prompt wherever it is; its finished record says `cancelled`."""
        await self._send(PROMPTS, prompt_id, None)

    async def feedback(self, feedback: Feedback | None = None, **fields: Any) -> Delivered:
        """Publish feedback on an answer (an event, or prompt_id, rating, correction, labels)."""
        try:
            feedback = feedback or Feedback(**fields)
        except (TypeError, ValueError) as error:
            raise EventInvalid(
                f"Not valid feedback: {error}.", "Mend the field it names."
            ) from None
        if feedback.prompt_id is None:
            raise EventInvalid("Feedback names no prompt_id.", "Pass the prompt_id of the answer.")
        prompt_id, feedback_id = feedback.prompt_id, feedback.feedback_id or ids.new_id("feedback")
        feedback = msgspec.structs.replace(feedback, feedback_id=feedback_id)
        return await self._send(FEEDBACK, prompt_id, feedback)

    def subscribe(
        self,
        topic: str = "generations",
        *,
        conversation_id: str | None = None,
        since: Since = "latest",
        resume: str | None = None,
        name: str | None = None,
    ) -> Subscription:
        """Follow a topic's events; see Subscription for resuming by position or by name."""
        if topic not in BY_NAME:
            raise EventInvalid(
                f"There is no topic {topic!r}.", f"The topics are {', '.join(BY_NAME)}."
            )
        return Subscription(self.settings, BY_NAME[topic], conversation_id, since, resume, name)

    def _opened(self) -> Producer:
        if self._producer is None:
            raise ClientClosed("This client is not open.", "Use it in `async with Client() as c:`.")
        return self._producer

    async def _open_replies(self) -> Replies:
        async with self._lock:
            if self._replies is None:
                replies = Replies(self.settings, self._on_resumed)
                await replies.open()
                self._replies = replies
            return self._replies

    async def _send(
        self,
        topic: Topic,
        key: str,
        event: Event | None,
        parent: str | None = None,
        partition: int | None = None,
    ) -> Delivered:
        if self._spans is None:
            return await self._deliver(topic, key, event, parent, partition)
        with self._spans.sending(topic, key, parent) as carried:
            return await self._deliver(topic, key, event, carried, partition)

    async def _deliver(
        self, topic: Topic, key: str, event: Event | None, trace: str | None, partition: int | None
    ) -> Delivered:
        producer = self._opened()
        value = None if event is None else codec.checked(topic, event)
        if not 1 <= len(key) <= limits.ID_CHARS_MAX:
            raise EventInvalid(f"{key[:80]!r} is no id.", "Ids have 1 to 256 characters.")
        made = headers.make_headers(topic, ids.new_id("event"), self._source, trace)
        return await producer.send(Outgoing(topic, key, value, made, partition))

    async def _send_all(
        self, topic: Topic, records: Iterable[tuple[str, bytes, headers.Headers]]
    ) -> int:
        self._opened()
        async with self._lock:
            if self._bulk is None:
                self._bulk = await asyncio.to_thread(BulkProducer, self.settings)
            return await asyncio.to_thread(self._bulk.send_all, topic, records)

    def _documents(
        self, documents: Iterable[Document]
    ) -> Iterator[tuple[str, bytes, headers.Headers]]:
        checked = codec.checker(DOCUMENTS)
        series = headers.header_series(DOCUMENTS, self._source, ids.new_id("event"))
        for document, made in zip(documents, series, strict=False):
            yield document.document_id or ids.new_id("document"), checked(document), made

    def _prompts(self, prompts: Iterable[Prompt]) -> Iterator[tuple[str, bytes, headers.Headers]]:
        checked = codec.checker(PROMPTS)
        for prompt in prompts:
            # A trace of its own for each: it joins all that comes of this prompt.
            made = headers.make_headers(PROMPTS, ids.new_id("event"), self._source)
            yield prompt.prompt_id or ids.new_id("prompt"), checked(prompt), made


def _messages(given: str | Sequence[Message | Mapping[str, str]]) -> list[Message]:
    if isinstance(given, str):
        return [Message("user", given)]
    try:
        return [m if isinstance(m, Message) else msgspec.convert(m, Message) for m in given]
    except msgspec.ValidationError as error:
        raise EventInvalid(f"Not a valid message: {error}.", "Use role and content.") from None
