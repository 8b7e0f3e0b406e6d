"""Runs the chosen benchmarks that need agents, on a river that is up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from agents.settings import GenerateSettings
from infra.bench.first_token import bench_first_token
from infra.bench.freshness import bench_freshness
from models.embedder import Embedder
from models.engine.options import TorchEngineOptions
from models.engine.torch_engine import TorchEngine
from models.retrieval.faiss_index import FaissIndex
from models.retrieval.passages import StoredPassage
from models.retrieval.retriever import Retriever
from schemas.events import Document
from streams.client import Client
from streams.settings import KafkaSettings, load

_DOCUMENTS = [f"Document {n} says that lake {n} is {n * 7} metres deep." for n in range(20)]


async def run_benchmarks(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, Any]:
    """Each benchmark's figures by its name."""
    results: dict[str, Any] = {}
    async with Client(kafka, source="/bench") as client:
        if "freshness" in names:
            results["freshness"] = await bench_freshness(client)
        if "first-token" in names:
            results["first-token"] = await _first_token(client)
    return results


async def _first_token(client: Client) -> dict[str, Any]:
    # One thread, as the retrieve agent has here, and the engine's own number: where two pools of
    # OpenMP threads outnumber the cores, libgomp stops spinning and the engine is half as fast.
    embedder = Embedder(threads=1)
    retriever = Retriever(FaissIndex(embedder.dim))
    settings = load(GenerateSettings)
    engine = TorchEngine(
        TorchEngineOptions(
            settings.cache_dir, settings.model, threads=settings.threads or os.cpu_count()
        )
    )
    await engine.start()
    try:
        for number, (text, vector) in enumerate(
            zip(_DOCUMENTS, embedder.embed(_DOCUMENTS), strict=True)
        ):
            name = f"bench-{number}"
            await client.publish_document(Document(text, name))
            retriever.apply([StoredPassage(f"{name}#0", name, text, None, None, {}, vector)], [])
        return await bench_first_token(client, engine, embedder, retriever)
    finally:
        await engine.close()
        retriever.close()
