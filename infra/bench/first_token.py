"""Prompt to first token: through Kafka, against the same retrieval and engine called in process."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any, Final

from agents.generation.draft import Draft, make_request
from agents.retrieval.contexts import found_passage
from infra.measure import percentiles
from models.embedder import Embedder
from models.engine.torch_engine import TorchEngine
from models.retrieval.retriever import Retriever
from schemas import ids
from schemas.events import Context, Message, Prompt, Retrieval, Sampling
from streams.client import Client

ROUNDS: Final = 100
_WARM_UP: Final = 5
_TOP_K: Final = 1


async def bench_first_token(
    client: Client, engine: TorchEngine, embedder: Embedder, retriever: Retriever
) -> dict[str, Any]:
    """Milliseconds of both, in turn, and by how much the way through Kafka is longer."""
    through_kafka, in_process = [], []
    for number in range(ROUNDS + _WARM_UP):
        question = f"What is written in document {number % 20}?"
        kafka_ms = await _through_kafka(client, question)
        process_ms = await _in_process(engine, embedder, retriever, question)
        if number >= _WARM_UP:
            through_kafka.append(kafka_ms)
            in_process.append(process_ms)
    kafka_p, process_p = percentiles(through_kafka), percentiles(in_process)
    paired = percentiles(k - p for k, p in zip(through_kafka, in_process, strict=True))
    return {
        "kafka_ms": kafka_p,
        "in_process_ms": process_p,
        "paired_difference_ms": paired,
        "overhead_p50_ms": round((kafka_p["p50"] or 0) - (process_p["p50"] or 0), 1),
        "overhead_p99_ms": round((kafka_p["p99"] or 0) - (process_p["p99"] or 0), 1),
        "goal": "p50 <= 15, p99 <= 50",
    }


async def _through_kafka(client: Client, question: str) -> float:
    started = time.perf_counter()
    answer = await client.ask(
        question, sampling=Sampling(max_tokens=2), retrieval=Retrieval(top_k=_TOP_K)
    )
    first_ms = None
    async for _ in answer:
        if first_ms is None:
            first_ms = 1000 * (time.perf_counter() - started)
    return first_ms or 1000 * (time.perf_counter() - started)


async def _in_process(
    engine: TorchEngine,
    embedder: Embedder,
    retriever: Retriever,
    question: str,
) -> float:
    started = time.perf_counter()
    prompt = Prompt([Message("user", question)], sampling=Sampling(max_tokens=2))
    vectors = embedder.embed([question])  # Nothing else wants the event loop here.
    (found,) = retriever.search([question], vectors, _TOP_K)
    context = Context(ids.new_id("prompt"), prompt, [found_passage(item) for item in found], 0, 0)
    request = make_request(Draft(context, engine.model, engine.model_version, 0), engine, _TOP_K)
    first_ms = None
    async with aclosing(engine.stream(request)) as pieces:
        async for piece in pieces:
            if first_ms is None and piece.text:
                first_ms = 1000 * (time.perf_counter() - started)
    return first_ms or 1000 * (time.perf_counter() - started)
