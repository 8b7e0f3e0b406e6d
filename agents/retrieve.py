"""prompts → contexts: find the passages that an answer needs.

Every replica holds the whole index, rebuilt from `passages` at its start and followed live. For
each batch of what has arrived: decode, embed the questions together, search, publish, acknowledge.
A tombstone of a prompt is passed on, so that generate cancels it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import getpid

import msgspec
import numpy as np

from agents.dead_letters import bury
from agents.identity import event_id
from agents.intake import Intake, Taken
from agents.settings import EmbedderSettings, RetrieveSettings, WorkerSettings
from agents.worker import follow_assignment, make_app, raw_topic, run
from models.embedder import Embedder
from models.retrieval.faiss_index import FaissIndex
from models.retrieval.index import PassageIndex
from models.retrieval.passages import StoredPassage
from models.retrieval.retriever import Found, Retriever
from schemas import codec, headers
from schemas.errors import EventInvalid
from schemas.events import DOCUMENT_FRESHNESS, Context, FoundPassage, Passage, Prompt, Statistic
from schemas.topics import ANALYTICS, CONTEXTS, PASSAGES, PROMPTS
from streams.follower import Follower
from streams.producer import Outgoing, Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

log = logging.getLogger("headwater.retrieve")


@dataclass(frozen=True, slots=True)
class Question:
    """A decoded prompt; None is a tombstone: the prompt is cancelled."""

    taken: Taken
    prompt_id: str
    prompt: Prompt | None


class Retrieve:
    """The state of one retrieve worker: embedder, index and the follower that feeds it."""

    def __init__(
        self,
        kafka: KafkaSettings,
        embedder: Embedder,
        retriever: Retriever,
        settings: RetrieveSettings,
    ) -> None:
        self._kafka = kafka
        self._embedder = embedder
        self._retriever = retriever
        self._settings = settings
        self._producer = Producer(kafka)
        self._replica = f"{socket.gethostname()}-{getpid()}"
        self._follower: Follower | None = None
        self.intake = Intake()
        self.ready = asyncio.Event()

    async def follow_passages(self) -> None:
        """Keep the index equal to `passages`, for ever."""
        self._follower = follower = Follower(self._kafka, PASSAGES, "earliest")
        await follower.open()
        while True:
            records = await follower.batch()
            upserts, deletes, published_ms = await self._changes(records)
            await asyncio.to_thread(self._retriever.apply, upserts, deletes)
            if self.ready.is_set():
                await self._report_freshness(published_ms)
            elif follower.caught_up:
                log.info("index holds %d passages", len(self._retriever))
                self.ready.set()

    async def work(self) -> None:
        """Process batches for ever, once the index is whole."""
        await self.ready.wait()
        async for batch in self.intake.batches(self._settings.batch_prompts_max):
            questions = [q for taken in batch if (q := await self._decode(taken))]
            found = await asyncio.to_thread(self._search, questions)
            # Sent in the order read: a tombstone must not overtake the prompt that it cancels.
            await asyncio.gather(
                *(
                    self._producer.send(self._context(question, passages))
                    for question, passages in zip(questions, found, strict=True)
                )
            )
            for question in questions:
                await question.taken.done()

    async def close(self) -> None:
        """Leave the broker and close the index."""
        if self._follower is not None:
            await self._follower.close()
        await self._producer.close()
        self._retriever.close()

    async def _decode(self, taken: Taken) -> Question | None:
        try:
            prompt_id, prompt = decode_prompt(taken.record)
            return Question(taken, prompt_id, prompt)
        except Exception as error:
            await bury(self._producer, taken.record, "retrieve", error)
            await taken.done()
            return None

    def _search(self, questions: Sequence[Question]) -> list[list[Found]]:
        asked = [i for i, q in enumerate(questions) if q.prompt and q.prompt.retrieval.top_k]
        found: list[list[Found]] = [[] for _ in questions]
        if not asked:
            return found
        texts = [question_text(questions[i].prompt) for i in asked]
        vectors = self._embedder.embed(texts)
        for i, text, vector in zip(asked, texts, vectors, strict=True):
            found[i] = self._search_one(questions[i].prompt, text, vector)
        return found

    def _search_one(self, prompt: Prompt | None, text: str, vector: np.ndarray) -> list[Found]:
        assert prompt is not None
        wanted = prompt.retrieval
        return self._retriever.search(
            [text],
            vector[None],
            wanted.top_k,
            mode=wanted.mode,
            score_floor=wanted.score_floor,
            filters=wanted.filters,
        )[0]

    def _context(self, question: Question, found: Sequence[Found]) -> Outgoing:
        record = question.taken.record
        value = None
        if question.prompt is not None:
            value = fitting_context(question.prompt_id, question.prompt, found, record)
        trace = headers.child_traceparent(headers.header(record.headers, "traceparent"))
        event = f"{question.prompt_id}@{record.offset}"
        made = headers.make_headers(CONTEXTS, event, "/agents/retrieve", trace)
        return Outgoing(CONTEXTS, question.prompt_id, value, made)

    async def _changes(
        self, records: Sequence[Record]
    ) -> tuple[list[StoredPassage], list[str], dict[str, int]]:
        """Latest state of each passage in the batch: what to store, what to delete; and when the
        documents of what is stored were published.
        """
        changes: dict[str, StoredPassage | None] = {}
        published_ms: dict[str, int] = {}
        for record in records:
            try:
                passage_id, passage = decode_passage(record, self._embedder)
            except EventInvalid as error:
                await self._refuse_passage(record, error)
                continue
            changes.pop(passage_id, None)
            changes[passage_id] = None if passage is None else stored(passage)
            if passage is not None:
                published_ms[passage.document_id] = passage.published_ms
        upserts = [passage for passage in changes.values() if passage is not None]
        return upserts, [key for key, found in changes.items() if found is None], published_ms

    async def _refuse_passage(self, record: Record, error: EventInvalid) -> None:
        # A replica that starts reads all of the topic: what was refused before is only logged.
        if self.ready.is_set():
            await bury(self._producer, record, "retrieve", error)
        else:
            log.warning("passage %s left out: %s", record.key_text, error)

    async def _report_freshness(self, published_ms: Mapping[str, int]) -> None:
        """One statistic for each document whose passages can be found from now on."""
        now_ms = time.time_ns() // 1_000_000
        sends = [
            self._producer.send(freshness_statistic(document_id, since_ms, now_ms, self._replica))
            for document_id, since_ms in published_ms.items()
        ]
        await asyncio.gather(*sends)


def decode_prompt(record: Record) -> tuple[str, Prompt | None]:
    """The prompt_id and the prompt (None: a tombstone) in a record; raises EventInvalid."""
    if record.value is None:
        return event_id(record, None), None
    prompt: Prompt = codec.decode(PROMPTS, record.value)
    return event_id(record, prompt.prompt_id), prompt


def decode_passage(record: Record, embedder: Embedder) -> tuple[str, Passage | None]:
    """The passage_id and the passage (None: a tombstone) in a record; raises EventInvalid."""
    if record.value is None:
        return record.key_text or "", None
    passage: Passage = codec.decode(PASSAGES, record.value)
    if passage.embedder != embedder.name or len(passage.embedding) != 4 * embedder.dim:
        raise EventInvalid(
            f"{passage.passage_id} was embedded by {passage.embedder!r} "
            f"({len(passage.embedding) // 4} dimensions), this agent uses {embedder.name!r}.",
            "Set the same HEADWATER_EMBEDDER_NAME everywhere and publish the documents again.",
        )
    return passage.passage_id, passage


def stored(passage: Passage) -> StoredPassage:
    """A passage as the indexes keep it."""
    return StoredPassage(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        text=passage.text,
        title=passage.title,
        source=passage.source,
        metadata=passage.metadata,
        embedding=np.frombuffer(passage.embedding, dtype="<f4"),
    )


def question_text(prompt: Prompt | None) -> str:
    """What to search for: the last thing that the user said."""
    assert prompt is not None
    turns = [message for message in prompt.messages if message.role == "user"] or prompt.messages
    return turns[-1].content


def fitting_context(
    prompt_id: str, prompt: Prompt, found: Sequence[Found], record: Record
) -> bytes:
    """The encoded context, with the lowest-ranked passages left out until it fits its topic."""
    context = Context(
        prompt_id=prompt_id,
        prompt=prompt,
        passages=[found_passage(item) for item in found],
        prompted_ms=record.timestamp_ms,
        retrieved_ms=time.time_ns() // 1_000_000,
    )
    value = codec.encode(context)
    while len(value) > CONTEXTS.record_bytes_max and context.passages:
        context = msgspec.structs.replace(context, passages=context.passages[:-1])
        value = codec.encode(context)
    return value


def found_passage(found: Found) -> FoundPassage:
    """A search result as it travels."""
    return FoundPassage(
        passage_id=found.passage.passage_id,
        document_id=found.passage.document_id,
        text=found.passage.text,
        score=found.score,
        cosine=found.dense_score,
        title=found.passage.title,
        source=found.passage.source,
    )


def freshness_statistic(
    document_id: str, published_ms: int, retrievable_ms: int, replica: str
) -> Outgoing:
    """Document published → retrievable in one replica, as an analytics record."""
    statistic = Statistic(
        name=DOCUMENT_FRESHNESS,
        window_start_ms=published_ms,
        window_end_ms=max(retrievable_ms, published_ms),
        labels={"document_id": document_id, "replica": replica},
        values={"freshness_ms": float(max(retrievable_ms - published_ms, 0))},
    )
    key = f"{DOCUMENT_FRESHNESS}/{document_id}/{replica}"
    made = headers.make_headers(ANALYTICS, f"{key}@{published_ms}", "/agents/retrieve")
    return Outgoing(ANALYTICS, key, codec.encode(statistic), made)


def open_index(settings: RetrieveSettings, dim: int) -> PassageIndex:
    """The dense index that the settings name."""
    if settings.index == "faiss":
        return FaissIndex(dim)
    if settings.index == "qdrant":
        from models.retrieval.qdrant_index import QdrantIndex

        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        return QdrantIndex(
            settings.qdrant_url, dim, collection=settings.qdrant_collection, api_key=key
        )
    from models.retrieval.qdrant_edge import QdrantEdgeIndex

    return QdrantEdgeIndex(settings.qdrant_folder, dim)


def main() -> None:
    """Run one retrieve worker until it is told to stop."""
    kafka, worker = load(KafkaSettings), load(WorkerSettings)
    settings, embedding = load(RetrieveSettings), load(EmbedderSettings)
    embedder = Embedder(embedding.name, embedding.device, threads=embedding.threads)
    retriever = Retriever(open_index(settings, embedder.dim))
    retrieve = Retrieve(kafka, embedder, retriever, settings)
    app = make_app("retrieve", kafka, worker)
    app.agent(raw_topic(app, kafka, PROMPTS), name="retrieve")(retrieve.intake.fill)
    follow_assignment(app, retrieve.intake.owns)
    run(
        app,
        worker,
        [retrieve.follow_passages, retrieve.work],
        retrieve.ready.wait,
        retrieve.close,
    )


if __name__ == "__main__":
    main()
