"""prompts → contexts: find the passages that an answer needs.

Every replica holds the whole index, rebuilt from `passages` at its start and followed live
(`passage_feed`). For each batch of prompts that has arrived:
1. decode; what is no prompt goes to dead-letters,
2. embed the questions together, draw serving variants where some are on trial (`choices`), search,
   make the contexts,
3. publish them in the order read: a tombstone cancels, and must not overtake its prompt,
4. acknowledge, so that the offsets may be committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from agents.adapting.settings import AdaptSettings
from agents.passages.passage_feed import PassageFeed
from agents.retrieval.choices import Choices
from agents.retrieval.contexts import context_record
from agents.retrieval.indexes import open_index
from agents.retrieval.questions import Question, decode_prompt, question_text
from agents.runtime.blame import is_the_records_fault, together_or_alone
from agents.runtime.dead_letters import bury
from agents.runtime.intake import Intake, Taken
from agents.runtime.tracing import Tracing, make_tracing
from agents.runtime.worker import follow_assignment, make_app, raw_topic, run
from agents.settings import EmbedderSettings, RetrieveSettings, WorkerSettings
from models.embedder import Embedder
from models.retrieval.retriever import Found, Retriever
from models.sketch import sketches
from schemas.events import Prompt
from schemas.headers import header
from schemas.topics import PASSAGES, PROMPTS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings, load


class Retrieve:
    """The state of one retrieve worker: embedder, index and the feed that fills it."""

    def __init__(
        self,
        kafka: KafkaSettings,
        embedder: Embedder,
        retriever: Retriever,
        settings: RetrieveSettings,
        choices: Choices,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or make_tracing("retrieve")
        self._embedder = embedder
        self._retriever = retriever
        self._settings = settings
        self.choices = choices
        self._producer = Producer(kafka)
        self.feed = PassageFeed(kafka, self._producer, embedder, retriever)
        self.intake = Intake()

    async def work(self) -> None:
        """Process batches for ever, once the index is whole."""
        await self.feed.ready.wait()
        await self.choices.ready.wait()
        async for batch in self.intake.batches(self._settings.batch_prompts_max):
            # 1.
            questions = [q for taken in batch if (q := await self._decode(taken))]
            # 2.
            contexts = await together_or_alone(questions, self._contexts, self._refuse)
            # 3. and 4.
            await asyncio.gather(*(self._publish(*pair) for pair in contexts))

    async def close(self) -> None:
        """Leave the broker and close the index."""
        await self.feed.close()
        await self.choices.close()
        await self._producer.close()
        self._retriever.close()
        await self._tracing.close()

    async def _decode(self, taken: Taken) -> Question | None:
        try:
            prompt_id, prompt = decode_prompt(taken.record)
            span = self._tracing.process(PROMPTS, header(taken.record.headers, "traceparent"))
            span.set_attribute("headwater.prompt_id", prompt_id)
            return Question(taken, prompt_id, prompt, span=span)
        except Exception as error:
            await self._bury(taken, error)
            return None

    async def _contexts(self, questions: Sequence[Question]) -> list[Outgoing]:
        return await asyncio.to_thread(self._search, questions)

    def _search(self, questions: Sequence[Question]) -> list[Outgoing]:
        asked = list(questions)
        on_trial = [self.choices.takes_part(question) for question in asked]
        embedded = [
            (number, prompt, question_text(prompt))
            for number, question in enumerate(asked)
            if (prompt := question.prompt) and (on_trial[number] or prompt.retrieval.top_k)
        ]
        vectors = self._embedder.embed([text for _, _, text in embedded])
        found: list[list[Found]] = [[] for _ in asked]
        known: list[list[float]] = [[] for _ in asked]
        for (number, prompt, text), vector, sketch in zip(
            embedded, vectors, sketches(vectors), strict=True
        ):
            known[number] = sketch
            if on_trial[number]:
                asked[number] = self.choices.choose(asked[number], vector)
            wanted = asked[number].prompt or prompt
            if wanted.retrieval.top_k:
                found[number] = self._search_one(wanted, text, vector)
        return [context_record(*each) for each in zip(asked, found, known, strict=True)]

    def _search_one(self, prompt: Prompt, text: str, vector: np.ndarray) -> list[Found]:
        wanted = prompt.retrieval
        return self._retriever.search(
            [text],
            vector[None],
            wanted.top_k,
            mode=wanted.mode,
            score_floor=wanted.score_floor,
            filters=wanted.filters,
        )[0]

    async def _publish(self, question: Question, context: Outgoing) -> None:
        try:
            await self._producer.send(context)
        except Exception as error:
            if not is_the_records_fault(error):
                raise
            await self._refuse(question, error)
        else:
            question.span.end()
            await question.taken.done()

    async def _refuse(self, question: Question, error: Exception) -> None:
        question.span.set_attribute("error.type", type(error).__name__)
        question.span.end()
        await self._bury(question.taken, error)

    async def _bury(self, taken: Taken, error: Exception) -> None:
        await bury(self._producer, taken.record, "retrieve", error)
        await taken.done()


def main() -> None:
    """Run one retrieve worker until it is told to stop."""
    kafka, worker = load(KafkaSettings), load(WorkerSettings)
    settings, embedding = load(RetrieveSettings), load(EmbedderSettings)
    embedder = Embedder(embedding.name, embedding.device, threads=embedding.threads)
    retriever = Retriever(open_index(settings, embedder.dim))
    choices = Choices(kafka, load(AdaptSettings))
    retrieve = Retrieve(kafka, embedder, retriever, settings, choices)
    feed = retrieve.feed
    app = make_app("retrieve", kafka, worker)
    prompts, passages = raw_topic(app, kafka, PROMPTS), raw_topic(app, kafka, PASSAGES)
    app.agent(prompts, name="retrieve")(retrieve.intake.fill)
    app.agent(passages, name="malformed-passages")(feed.intake.fill)
    follow_assignment(app, prompts, retrieve.intake.owns)
    follow_assignment(app, passages, feed.intake.owns)
    tasks = [feed.follow, feed.bury_malformed, choices.follow, retrieve.work]
    run(app, worker, tasks, feed.ready.wait, retrieve.close)


if __name__ == "__main__":
    main()
