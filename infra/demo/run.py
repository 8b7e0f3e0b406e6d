"""Publish, ask, rate, measure: what `headwater demo` does once the river runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from infra.commands.ask import stream_text
from infra.commands.shell import out
from infra.demo.learning import teach
from infra.demo.stdlib_documents import stdlib_documents
from infra.demo.windows import closed_windows
from infra.freshness import Freshness
from infra.measure import (
    generations,
    hop_latencies,
    percentiles,
    record_counts,
    tokens_per_s,
)
from schemas.events import Document, Sampling
from streams.client import Client
from streams.settings import KafkaSettings

QUESTIONS: Final = (
    "What does textwrap.dedent do?",
    "What does shutil.rmtree do?",
    "What does heapq.heappush do?",
    "What does functools.lru_cache do?",
)
_TOKENS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Ingested:
    """What ingesting took."""

    documents: int
    duration_s: float
    fresh_ms: list[float]


async def demonstrate(kafka: KafkaSettings, learning: bool, windows: bool) -> dict[str, Any]:
    """Run the demonstration on a river that is up; returns its summary."""
    async with Client(kafka, source="/demo") as client:
        ingested = await _ingest(client, list(stdlib_documents()))
        answers = [await _ask_and_rate(client, question) for question in QUESTIONS]
        # Now, for the panel asks many questions at once.
        finished, hops = await generations(kafka), await hop_latencies(kafka)
        taught = await teach(client) if learning else None
        closed = await closed_windows(client) if windows else None
    return {
        "documents": ingested.documents,
        "documents_per_s": round(ingested.documents / ingested.duration_s, 1),
        "freshness_ms": percentiles(ingested.fresh_ms),
        "hops_ms": hops,
        "tokens_per_s": tokens_per_s(finished),
        "answers": answers,
        "learning": taught,
        "windows": closed,
        "records": await record_counts(kafka),
    }


async def _ingest(client: Client, documents: Sequence[Document]) -> Ingested:
    freshness = Freshness(client)
    await freshness.open()
    started = time.monotonic()
    try:
        fresh_ms = [ms async for ms in _with_progress(freshness.publish(documents), len(documents))]
    finally:
        await freshness.close()
    took_s = time.monotonic() - started
    out.print(
        f"{len(documents)} docstrings of the standard library are retrievable, "
        f"{len(documents) / took_s:.0f} documents/s\n"
    )
    return Ingested(len(documents), took_s, fresh_ms)


async def _with_progress(values: AsyncIterator[float], total: int) -> AsyncIterator[float]:
    columns = (TextColumn("ingesting"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("", total=total)
        async for value in values:
            yield value
            progress.advance(task)


async def _ask_and_rate(client: Client, question: str) -> dict[str, Any]:
    out.rule(question, align="left", style="bold")
    answer = await client.ask(
        question, sampling=Sampling(max_tokens=_TOKENS_MAX), conversation_id="demo"
    )
    await stream_text(answer)
    generation = await answer.finished()
    rating = 1.0 if generation.cited else -1.0
    await client.feedback(prompt_id=generation.prompt_id, rating=rating, user_id="demo")
    out.print(f"feedback recorded: rating {rating:+.0f}\n", style="dim")
    return {
        "question": question,
        "text": generation.text,
        "passages": [passage.document_id for passage in generation.passages],
        "cited": generation.cited,
        "rating": rating,
    }
