"""The generate agent on a real broker and engine, with partitions given and taken by hand."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from streams_by_hand import HandStream
from tiny_model import build_tiny_model

from agents.generate import Generate
from agents.settings import GenerateSettings
from models.engine.options import TorchEngineOptions
from models.engine.torch_engine import TorchEngine
from schemas import codec
from schemas.events import (
    Context,
    DeadLetter,
    FoundPassage,
    Generation,
    Message,
    Prompt,
    Sampling,
    TokenChunk,
)
from schemas.topics import CONTEXTS, DEAD_LETTERS, GENERATIONS, TOKENS, Topic
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

WAIT_S_MAX = 30
TOPIC_BYTES = 1_800


@pytest.fixture
def endless_model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "model", endless=True)


@asynccontextmanager
async def generating(
    kafka: KafkaSettings, model: Path
) -> AsyncIterator[tuple[Generate, TorchEngine, HandStream]]:
    """An agent that has partitions 0 and 1."""
    # Without guesses, which are often right where a model repeats itself: answers are to last.
    options = TorchEngineOptions(model.parent / "cache", str(model), slots=4, guesses_max=0)
    engine = TorchEngine(options)
    generate, stream = Generate(kafka, engine, GenerateSettings(passages_max=4)), HandStream()
    generate.owns({0, 1})
    tasks = [
        asyncio.create_task(generate.work()),
        asyncio.create_task(generate.intake.fill(stream)),  # type: ignore[arg-type]
    ]
    try:
        await generate.ready.wait()
        yield generate, engine, stream
    finally:
        await generate.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def context(prompt_id: str, tokens: int, passages: int = 0) -> bytes:
    """Short passages with long titles of letters drawn at random, which hardly compress."""
    rng = random.Random(prompt_id)
    titles = ["".join(rng.choices(string.ascii_letters, k=1_000)) for _ in range(passages)]
    found = [
        FoundPassage(f"{n}#0", str(n), "It is wet.", 1.0, title=title)
        for n, title in enumerate(titles)
    ]
    prompt = Prompt([Message("user", "why?")], prompt_id, Sampling(max_tokens=tokens))
    return codec.encode(Context(prompt_id, prompt, found, 1, 1))


async def until_running(engine: TorchEngine, count: int) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while engine.running != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def events(kafka: KafkaSettings, topic: Topic) -> list[Generation | TokenChunk | DeadLetter]:
    async with Subscription(kafka, topic, since="earliest") as subscription:
        return [codec.decode(topic, r.value or b"") async for r in subscription.present()]


async def until_acknowledged(stream: HandStream, *places: tuple[int, int]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while sorted(stream.acknowledged) != list(places):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_answers_of_a_lost_partition_stop_using_the_engine(
    kafka: KafkaSettings, endless_model: Path
) -> None:
    async with generating(kafka, endless_model) as (generate, engine, stream):
        topic = kafka.topic_name(CONTEXTS)
        stream.put(topic, 0, 0, context("lost", 950))
        stream.put(topic, 0, 1, context("lost", 950))  # its twin, which waits for it
        stream.put(topic, 1, 0, context("kept", 950))
        await until_running(engine, 2)
        generate.owns({1})
        await until_running(engine, 1)
        # Back again: all is read anew from the committed offset, and nobody had cancelled it.
        generate.owns({0, 1})
        stream.put(topic, 0, 0, context("lost", 4))
        async with asyncio.timeout(WAIT_S_MAX):
            while len(stream.acknowledged) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    found = {x.prompt_id: x for x in await events(kafka, GENERATIONS) if isinstance(x, Generation)}
    assert found.keys() == {"lost", "kept"}
    assert found["lost"].finish_reason == found["kept"].finish_reason == "length"


async def test_a_finished_record_that_is_too_large_says_so_without_its_passages(
    kafka: KafkaSettings, endless_model: Path
) -> None:
    await limit_size(kafka, GENERATIONS)
    async with generating(kafka, endless_model) as (_, _, stream):
        stream.put(kafka.topic_name(CONTEXTS), 0, 0, context("large", 20, passages=2))
        stream.put(kafka.topic_name(CONTEXTS), 0, 1, context("next", 4))
        await until_acknowledged(stream, (0, 0), (0, 1))
    found = [x for x in await events(kafka, GENERATIONS) if isinstance(x, Generation)]
    large, following = sorted(found, key=lambda generation: generation.prompt_id)
    assert (large.finish_reason, large.passages) == ("error", [])
    assert large.text and large.usage.completion_tokens == 20
    assert "larger than the broker takes" in (large.error or "")
    assert "passages were left out" in (large.error or "")
    assert following.finish_reason == "length"
    # The asker is told the same.
    last = [x for x in await events(kafka, TOKENS) if isinstance(x, TokenChunk) and x.generation]
    assert {x.prompt_id: x.generation for x in last} == {"large": large, "next": following}
    assert await events(kafka, DEAD_LETTERS) == []


async def test_a_chunk_that_is_too_large_is_bridged_by_the_last(
    kafka: KafkaSettings, endless_model: Path
) -> None:
    await limit_size(kafka, TOKENS)
    async with generating(kafka, endless_model) as (_, _, stream):
        stream.put(kafka.topic_name(CONTEXTS), 0, 0, context("large", 20, passages=2))
        await until_acknowledged(stream, (0, 0))
    (whole,) = await events(kafka, GENERATIONS)
    assert isinstance(whole, Generation)
    assert (whole.finish_reason, len(whole.passages)) == ("length", 2)
    chunks = [x for x in await events(kafka, TOKENS) if isinstance(x, TokenChunk)]
    assert all(chunk.index > 0 for chunk in chunks)  # the first names the passages
    told = chunks[-1].generation
    assert told is not None
    assert (told.text, told.finish_reason, told.passages) == (whole.text, "error", [])


async def limit_size(kafka: KafkaSettings, topic: Topic) -> None:
    """As an operator might, against what the topic declares."""
    entry = ConfigEntry(
        "max.message.bytes", str(TOPIC_BYTES), incremental_operation=AlterConfigOpType.SET
    )
    name = kafka.topic_name(topic)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient(kafka.client_config())
    for future in admin.incremental_alter_configs([resource]).values():
        await asyncio.wrap_future(future)
    # The broker goes by it a moment later.
    limit = None
    while limit != str(TOPIC_BYTES):
        (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        limit = (await asyncio.wrap_future(described))["max.message.bytes"].value
