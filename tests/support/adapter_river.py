"""A river with one generate worker, as those see it who publish adapters and ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from stage import WAIT_S_MAX, a_context
from tiny_adapter import write_tiny_adapter

from schemas import codec
from schemas.events import DeadLetter, Generation, ModelUpdate, TokenChunk
from schemas.topics import CONTEXTS, DEAD_LETTERS, MODEL_UPDATES, TOKENS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription


@dataclass
class AdapterRiver:
    """Publishes versions of the adapter "default" or another, and reads what comes of it."""

    kafka: KafkaSettings
    producer: Producer
    folder: Path

    def __post_init__(self) -> None:
        self._numbers = count()

    def train(self, version: str, seed: int) -> str:
        """Writes an adapter where the worker can fetch it; returns its sha256."""
        return write_tiny_adapter(self.folder / version, seed)

    async def publish(
        self, version: str, sha256: str, origin: str = "online", adapter: str = "default"
    ) -> None:
        """A record of model-updates."""
        update = ModelUpdate(
            adapter=adapter,
            model_version=version,
            origin=origin,  # type: ignore[arg-type]
            published_ms=time.time_ns() // 1_000_000,
            artifact_uri=f"file://{self.folder}/{version}",
            artifact_sha256=sha256,
        )
        await self.send(codec.encode(update), adapter)

    async def send(self, value: bytes | None, adapter: str = "default") -> None:
        await self.producer.send(Outgoing(MODEL_UPDATES, adapter, value, []))

    async def ask(self, tokens: int = 12) -> tuple[Generation, list[TokenChunk]]:
        """A new prompt's finished record, and all chunks of its answer."""
        prompt_id = f"prompt-{next(self._numbers)}"
        chunks: list[TokenChunk] = []
        async with Subscription(self.kafka, TOKENS) as subscription:
            context = Outgoing(CONTEXTS, prompt_id, a_context(prompt_id, tokens), [])
            await self.producer.send(context)
            async with asyncio.timeout(WAIT_S_MAX):
                async for chunk in subscription:
                    assert isinstance(chunk, TokenChunk)
                    if chunk.prompt_id == prompt_id:
                        chunks.append(chunk)
                        if chunk.generation is not None:
                            return chunk.generation, chunks
        raise AssertionError

    async def until_served(self, version: str) -> Generation:
        """Asks until an answer comes from a version; it and its chunks must agree."""
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                generation, chunks = await self.ask()
                assert {chunk.model_version for chunk in chunks} == {generation.model_version}
                if generation.model_version == version:
                    return generation

    async def dead_letters(self, least: int = 0) -> list[DeadLetter]:
        """All that there are, once there are so many."""
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                async with Subscription(self.kafka, DEAD_LETTERS, since="earliest") as letters:
                    found = [
                        codec.decode(DEAD_LETTERS, record.value or b"")
                        async for record in letters.present()
                    ]
                if len(found) >= least:
                    return found


@asynccontextmanager
async def adapter_river(kafka: KafkaSettings, folder: Path) -> AsyncIterator[AdapterRiver]:
    """A river whose worker is somebody else's affair."""
    producer = Producer(kafka)
    try:
        yield AdapterRiver(kafka, producer, folder)
    finally:
        await producer.close()
