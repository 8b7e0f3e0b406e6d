"""The two guards of law 1: only the newest owner writes, and it knows what was written."""

from __future__ import annotations

import os

import pytest

from agents.generation.finals import Finals
from agents.passages.written_passages import read_back
from schemas import codec
from schemas.errors import Fenced, RecordTooLarge
from schemas.events import Generation, Timings, Usage
from schemas.topics import GENERATIONS, PASSAGES
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

NOW_MS = 1_000_000


def generation(prompt_id: str, text: str = "wet") -> Generation:
    return Generation(
        generation_id=f"generation-{prompt_id}",
        prompt_id=prompt_id,
        text=text,
        finish_reason="stop",
        model="tiny",
        model_version="base",
        attempt=1,
        passages=[],
        cited=[],
        usage=Usage(1, 1),
        timings=Timings(NOW_MS, NOW_MS, NOW_MS, NOW_MS),
    )


async def texts(kafka: KafkaSettings) -> list[str]:
    async with Subscription(kafka, GENERATIONS, since="earliest") as subscription:
        return [
            codec.decode(GENERATIONS, record.value or b"").text
            async for record in subscription.present()
        ]


async def test_a_predecessor_that_was_thought_dead_cannot_publish(kafka: KafkaSettings) -> None:
    zombie, owner = Finals(kafka, 0), Finals(kafka, 0)
    await zombie.open()
    await owner.open()
    with pytest.raises(Fenced):
        await zombie.publish(generation("p", "from the zombie"), [])
    await owner.publish(generation("p", "from the owner"), [])
    assert await texts(kafka) == ["from the owner"]


async def test_the_next_owner_finds_what_its_predecessor_finished(kafka: KafkaSettings) -> None:
    first, second = Finals(kafka, 1), Finals(kafka, 1)
    await first.open()
    await first.publish(generation("done"), [])
    await second.open()
    found = await second.find("done", prompted_ms=NOW_MS)
    assert found is not None
    assert found.text == "wet"
    assert await second.find("not done", prompted_ms=NOW_MS) is None


async def test_a_group_of_records_is_seen_whole_or_not_at_all(kafka: KafkaSettings) -> None:
    writer = FencedWriter(kafka, "group.0")
    await writer.open()
    too_large = Outgoing(GENERATIONS, "b", os.urandom(5_000_000), [])
    fitting = Outgoing(GENERATIONS, "a", codec.encode(generation("a")), [])
    with pytest.raises(RecordTooLarge, match="larger than the broker takes"):
        await writer.write([fitting, too_large])
    assert await texts(kafka) == []
    assert len(await writer.write([fitting, fitting])) == 2
    assert await texts(kafka) == ["wet", "wet"]


async def test_a_zombie_whose_record_is_refused_is_told_that_it_is_fenced(
    kafka: KafkaSettings,
) -> None:
    """To abort what failed fails too: that must not surface as an error of the library."""
    zombie, owner = FencedWriter(kafka, "group.1"), FencedWriter(kafka, "group.1")
    await zombie.open()
    await owner.open()
    with pytest.raises(Fenced):
        await zombie.write([Outgoing(GENERATIONS, "b", os.urandom(5_000_000), [])])


async def test_passage_counts_are_read_back_from_the_topic(kafka: KafkaSettings) -> None:
    writer = FencedWriter(kafka, "ingest.2")
    await writer.open()
    await writer.write([Outgoing(PASSAGES, f"doc#{n}", b"{}", [], 2) for n in range(5)])
    await writer.write([Outgoing(PASSAGES, f"doc#{n}", None, [], 2) for n in (3, 4)])
    await writer.write([Outgoing(PASSAGES, "other#0", b"{}", [], 3)])
    written = await read_back(kafka, 2)
    assert written.replace("doc", 1) == ["doc#1", "doc#2"]
    assert written.replace("other", 0) == []
