"""Where faults happen: a river with workers that can be killed, and what consumers see of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka
import psutil

from headwater import Client, Message, Prompt, Retrieval, Sampling
from infra.part import Part
from infra.supervisor import Supervisor
from schemas import codec
from schemas.events import Context, Generation
from schemas.topics import CONTEXTS, GENERATIONS, PASSAGES, Topic
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

WAIT_S_MAX = 100
SETTLE_S = 1.0
# Long enough that hardly one of some hundred answers is there before the first kill.
ANSWER_TOKENS = 160


@dataclass(frozen=True)
class Stage:
    """A river, the supervisors of its workers and of its broker, and what the workers were."""

    kafka: KafkaSettings
    workers: Supervisor
    broker: Supervisor
    parts: Sequence[Part]
    folder: Path

    async def records(self, topic: Topic) -> list[Record]:
        """All that read-committed consumers see now."""
        async with Subscription(self.kafka, topic, since="earliest") as subscription:
            return [record async for record in subscription.present()]

    async def keys(self, topic: Topic, prefix: str) -> Counter[str]:
        """How many records there are of each key that begins so."""
        keys = [record.key_text or "" for record in await self.records(topic)]
        return Counter(key for key in keys if key.startswith(prefix))

    async def publish(self, prefix: str, count: int, documents: int = 0) -> set[str]:
        """Prompts and documents at once, without a pause; returns the prompt ids."""
        prompts = [a_prompt(f"{prefix}{number}") for number in range(count)]
        async with Client(self.kafka) as client:
            await asyncio.gather(
                client.publish_prompts(prompts),
                *(
                    client.publish_document("Deep.", document_id=f"{prefix}{number}")
                    for number in range(documents)
                ),
            )
        return {prompt.prompt_id or "" for prompt in prompts}

    async def begun(self, topic: Topic, prefix: str, least: int = 1) -> None:
        """Return once some records are there."""

        async def enough() -> bool:
            return len(await self.keys(topic, prefix)) >= least

        await until(enough)

    async def each_has_one_final(self, prefix: str, expected: set[str]) -> None:
        """Law 1."""
        await self.begun(GENERATIONS, prefix, len(expected))
        await asyncio.sleep(SETTLE_S)  # for records too many, which nothing announces
        finals = await self.keys(GENERATIONS, prefix)
        assert set(finals) == expected
        assert set(finals.values()) == {1}

    async def generations(self, prefix: str) -> dict[str, Generation]:
        """The finished records, by prompt."""
        records = await self.records(GENERATIONS)
        found = [codec.decode(GENERATIONS, record.value or b"") for record in records]
        return {one.prompt_id: one for one in found if one.prompt_id.startswith(prefix)}

    def produce(self, values: Mapping[str, bytes | None], partition: int) -> None:
        """Write to `contexts` past retrieve, so that all share a partition, in this order."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka.bootstrap})
        for key, value in values.items():
            producer.produce(self.kafka.topic_name(CONTEXTS), value, key, partition)
        producer.flush()

    async def unfinished(self, prefix: str, expected: set[str]) -> int:
        return len(expected) - len(await self.keys(GENERATIONS, prefix))


# Where the work of each agent shows.
OUTPUT = {"ingest": PASSAGES, "retrieve": CONTEXTS, "generate": GENERATIONS}


def a_prompt(prompt_id: str, tokens: int = ANSWER_TOKENS) -> Prompt:
    return Prompt(
        [Message("user", "How deep?")],
        prompt_id,
        Sampling(max_tokens=tokens),
        Retrieval(top_k=1),
    )


def a_context(prompt_id: str, tokens: int) -> bytes:
    return codec.encode(Context(prompt_id, a_prompt(prompt_id, tokens), [], 1, 1))


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def kill(supervisor: Supervisor, victim: str) -> None:
    """kill -9, as soon as there is a process that has not been killed yet."""

    async def alive() -> bool:
        return psutil.pid_exists(supervisor.pids()[victim])

    await until(alive)
    os.kill(supervisor.pids()[victim], signal.SIGKILL)
