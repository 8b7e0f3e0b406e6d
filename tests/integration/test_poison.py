"""A record that makes an agent's parts raise ends up as a dead letter, and its batch goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import choking_agent
import pytest
from broker import running
from workers import Workers, agent_parts

from headwater import Client, Message, Prompt, Retrieval
from infra.part import Part
from schemas import codec
from schemas.events import DeadLetter
from schemas.topics import ANALYTICS, CONTEXTS, DEAD_LETTERS, DOCUMENTS, PASSAGES, PROMPTS, Topic
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

WAIT_S_MAX = 60
BATCH = 20  # published together, so that the bad one is somewhere within a batch


def choking(part: Part) -> Part:
    """The same worker with parts that fail at certain texts."""
    return replace(part, command=[sys.executable, choking_agent.__file__, part.name])


@pytest.fixture
def workers(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Workers]:
    parts = [choking(part) for part in agent_parts(kafka, "none", ("ingest", "retrieve"))]
    with running(parts, tmp_path) as supervisor:
        yield Workers(supervisor, tmp_path)


async def records(kafka: KafkaSettings, topic: Topic) -> list[Record]:
    async with Subscription(kafka, topic, since="earliest") as subscription:
        return [record async for record in subscription.present()]


async def letters(kafka: KafkaSettings, count: int) -> list[DeadLetter]:
    async with asyncio.timeout(WAIT_S_MAX):
        while len(found := await records(kafka, DEAD_LETTERS)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return [codec.decode(DEAD_LETTERS, record.value or b"") for record in found]


async def keys(kafka: KafkaSettings, topic: Topic, count: int) -> set[str]:
    async with asyncio.timeout(WAIT_S_MAX):
        while len(found := await records(kafka, topic)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return {record.key_text or "" for record in found}


async def test_one_bad_record_is_buried_and_the_rest_of_its_batch_goes_on(
    kafka: KafkaSettings, workers: Workers
) -> None:
    texts = {f"good-{n}": f"Lake {n} is deep." for n in range(BATCH)}
    texts |= {
        "unembeddable": f"This {choking_agent.UNEMBEDDABLE}.",
        "unindexable": f"This {choking_agent.UNINDEXABLE}.",
    }
    pids = dict(workers.supervisor.pids())
    async with Client(kafka) as client:
        await asyncio.gather(
            *(client.publish_document(text, document_id=key) for key, text in texts.items())
        )
        # The bad document has no passages; the bad passage is nobody's fault before retrieve's.
        assert await keys(kafka, PASSAGES, BATCH + 1) == {
            f"{key}#0" for key in texts if key != "unembeddable"
        }
        await letters(kafka, 2)
        await keys(kafka, ANALYTICS, BATCH)  # so many can be found from now on
        asked = [
            Prompt([Message("user", text)], key, retrieval=Retrieval(top_k=3, mode="dense"))
            for key, text in texts.items()
        ]
        await client.publish_prompts(asked)
        assert await keys(kafka, CONTEXTS, BATCH + 1) == texts.keys() - {"unembeddable"}
        found = await letters(kafka, 3)
    assert dict(workers.supervisor.pids()) == pids, "a worker had to be started again"
    assert {(x.topic, x.key, x.agent, x.error, x.reason) for x in found} == {
        (kafka.topic_name(topic), key, agent, "ValueError", reason)
        for topic, key, agent, reason in (
            (DOCUMENTS, b"unembeddable", "ingest", "cannot embed this"),
            (PASSAGES, b"unindexable#0", "retrieve", "cannot index this"),
            (PROMPTS, b"unembeddable", "retrieve", "cannot embed this"),
        )
    }
    assert len(found) == 3

    contexts = [codec.decode(CONTEXTS, r.value or b"") for r in await records(kafka, CONTEXTS)]
    shown = {passage.document_id for context in contexts for passage in context.passages}
    assert "unindexable" not in shown
    assert {f"good-{n}" for n in range(BATCH)} <= shown
