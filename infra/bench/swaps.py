"""From a record of model-updates to the first token of its version, on a river under load."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from infra.bench.random_adapters import RandomAdapter, random_adapters
from infra.measure import percentiles
from models.engine.load import load as load_model
from models.engine.protocol import DEFAULT_ADAPTER
from schemas import codec
from schemas.clock import now_ms
from schemas.errors import AnswerTimeout
from schemas.events import Context, Message, ModelUpdate, Prompt, Sampling, TokenChunk
from schemas.topics import CONTEXTS, MODEL_UPDATES, TOKENS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

UPDATES: Final = 100
_ASKING: Final = 4
_ANSWER_TOKENS: Final = 16
_ADAPTERS: Final = 8
_WAIT_S_MAX: Final = 60.0


class _Load:
    """Askers of one prompt after the other, and what is seen of their answers."""

    def __init__(self, kafka: KafkaSettings, producer: Producer) -> None:
        self._kafka = kafka
        self._producer = producer
        self._numbers = count()
        self._ended: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        # By prompt, the versions that its chunks name.
        self.versions: defaultdict[str, set[str]] = defaultdict(set)
        self.reasons: dict[str, str] = {}

    async def ask(self) -> None:
        """For ever."""
        while True:
            key = f"bench-{next(self._numbers)}"
            messages = [Message("user", f"Tell me about the river {key}.")]
            prompt = Prompt(messages, key, Sampling(max_tokens=_ANSWER_TOKENS))
            context = codec.encode(Context(key, prompt, [], 1, 1))
            await self._producer.send(Outgoing(CONTEXTS, key, context, []))
            await self._ended[key].wait()

    async def watch(self) -> None:
        """For ever."""
        async with Subscription(self._kafka, TOKENS) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, TokenChunk)
                self.versions[chunk.prompt_id].add(chunk.model_version)
                self._begun[chunk.model_version].set()
                if chunk.finish_reason is not None:
                    self.reasons[chunk.prompt_id] = chunk.finish_reason
                    self._ended[chunk.prompt_id].set()

    async def first_token(self, version: str) -> None:
        """Returns once the first chunk of a version is seen. Raises AnswerTimeout."""
        try:
            async with asyncio.timeout(_WAIT_S_MAX):
                await self._begun[version].wait()
        except TimeoutError:
            raise AnswerTimeout(
                f"No answer came from {version} within {_WAIT_S_MAX:g} s.",
                "The log of the generate worker may say why.",
            ) from None


async def bench_swaps(kafka: KafkaSettings, cache_dir: Path, model: str) -> dict[str, Any]:
    """Milliseconds from before a record is sent until a consumer has the first chunk of its
    version. What lies between: the record's way, fetch, verification, load, swap, the next prompt's
    way and its prefill beside the other answers."""
    producer = Producer(kafka)
    load = _Load(kafka, producer)
    tasks = [asyncio.create_task(load.watch())]
    try:
        with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
            loaded = load_model(model, cache_dir, "auto", "auto")
            adapters = random_adapters(loaded.model, Path(folder), _ADAPTERS)
            del loaded
            tasks += [asyncio.create_task(load.ask()) for _ in range(_ASKING)]
            await load.first_token("base")
            waits_ms = [await _update(producer, load, adapters, n) for n in range(UPDATES)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await producer.close()
    return _figures(load, waits_ms)


async def _update(
    producer: Producer, load: _Load, adapters: Sequence[RandomAdapter], number: int
) -> float:
    version, adapter = f"v{number}", adapters[number % len(adapters)]
    update = ModelUpdate(
        adapter=DEFAULT_ADAPTER,
        model_version=version,
        origin="online",
        published_ms=now_ms(),
        artifact_uri=adapter.folder.as_uri(),
        artifact_sha256=adapter.sha256,
    )
    begun_s = time.perf_counter()
    await producer.send(Outgoing(MODEL_UPDATES, DEFAULT_ADAPTER, codec.encode(update), []))
    await load.first_token(version)
    waited_ms = 1000 * (time.perf_counter() - begun_s)
    # Not in step with the answers.
    await asyncio.sleep(0.1 + 0.01 * (number % 10))
    return waited_ms


def _figures(load: _Load, waits_ms: Sequence[float]) -> dict[str, Any]:
    finished = {key: load.versions[key] for key in load.reasons}
    return {
        "updates": len(waits_ms),
        "askers": _ASKING,
        "record_to_first_token_ms": percentiles(waits_ms),
        "answers": len(finished),
        "answers_with_two_versions": sum(len(versions) > 1 for versions in finished.values()),
        "answers_that_failed": sum(reason == "error" for reason in load.reasons.values()),
        "goal": "p99 <= 1000",
    }
