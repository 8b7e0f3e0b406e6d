"""Does the river find the paragraph that answers a question? Asked through the topics.

Each search mode is asked all questions as prompts, and its `contexts` are ranked by document.
Dense search is held against brute force over the same embeddings, read off `passages`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from infra.evaluation.squad import Squad
from infra.freshness import Freshness
from infra.measure import percentiles
from models.embedder import Embedder
from schemas import codec, ids
from schemas.errors import AnswerTimeout
from schemas.events import Context, Message, Passage, Prompt, Retrieval, Sampling, SearchMode
from schemas.topics import PASSAGES
from streams.client import Client
from streams.settings import KafkaSettings
from streams.subscription import Subscription

MODES: Final[tuple[SearchMode, ...]] = ("dense", "keyword", "fused")
# Several passages may belong to one document: enough of them for five documents.
_PASSAGES: Final = 50
_SILENCE_S_MAX: Final = 60.0


async def evaluate_retrieval(
    kafka: KafkaSettings, squad: Squad, embedder: Embedder
) -> dict[str, Any]:
    """Publish the paragraphs, ask the questions in each mode; returns the figures."""
    async with Client(kafka, source="/eval") as client:
        freshness = Freshness(client)
        await freshness.open()
        try:
            fresh_ms = [ms async for ms in freshness.publish(squad.documents)]
        finally:
            await freshness.close()
        scores: dict[str, Any] = {
            mode: score(await _ask_all(client, squad, mode), squad) for mode in MODES
        }
    brute = await _brute_force(kafka, squad, embedder)
    return {
        "paragraphs": len(squad.documents),
        "questions": len(squad.questions),
        **scores,
        "brute_force": score(brute, squad),
        "freshness_ms": percentiles(fresh_ms),
    }


def score(rankings: Sequence[Sequence[str]], squad: Squad) -> dict[str, float]:
    """Recall@1, recall@5 and mean reciprocal rank of rankings of document ids."""
    ranks = [
        ranking.index(wanted) + 1 if wanted in ranking else None
        for ranking, (_, wanted) in zip(rankings, squad.questions, strict=True)
    ]
    count = len(ranks)
    return {
        "recall@1": sum(rank == 1 for rank in ranks) / count,
        "recall@5": sum(rank is not None and rank <= 5 for rank in ranks) / count,
        "mrr": sum(1 / rank for rank in ranks if rank) / count,
    }


def by_document(passages: Sequence[str]) -> list[str]:
    """Document ids in the order of their best passage."""
    return list(dict.fromkeys(passages))


async def _ask_all(client: Client, squad: Squad, mode: SearchMode) -> list[list[str]]:
    prompts = [
        Prompt(
            [Message("user", question)],
            ids.new_id("prompt"),
            Sampling(max_tokens=1),
            Retrieval(_PASSAGES, mode),
        )
        for question, _ in squad.questions
    ]
    found: dict[str, list[str]] = {prompt.prompt_id or "": [] for prompt in prompts}
    async with client.subscribe("contexts") as subscription:
        await client.publish_prompts(prompts)
        missing = set(found)
        events = aiter(subscription)
        while missing:
            context = await _next_context(events)
            if context.prompt_id in missing:
                missing.discard(context.prompt_id)
                found[context.prompt_id] = by_document([p.document_id for p in context.passages])
    return [found[prompt.prompt_id or ""] for prompt in prompts]


async def _next_context(events: Any) -> Context:
    try:
        context: Context = await asyncio.wait_for(anext(events), _SILENCE_S_MAX)
        return context
    except TimeoutError:
        raise AnswerTimeout(
            f"No context came in {_SILENCE_S_MAX:g} s.", "See the log of the retrieve agent."
        ) from None


async def _brute_force(kafka: KafkaSettings, squad: Squad, embedder: Embedder) -> list[list[str]]:
    documents, vectors = [], []
    async with Subscription(kafka, PASSAGES, since="earliest") as subscription:
        async for record in subscription.present():
            passage: Passage = codec.decode(PASSAGES, record.value or b"")
            documents.append(passage.document_id)
            vectors.append(np.frombuffer(passage.embedding, dtype="<f4"))
    queries = embedder.embed([question for question, _ in squad.questions])
    similar = queries @ np.stack(vectors).T  # (questions, passages)
    best = np.argsort(-similar, axis=1, kind="stable")[:, :_PASSAGES]
    return [by_document([documents[i] for i in row]) for row in best]
