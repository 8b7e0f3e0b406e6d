"""The SDK against a real broker, without agents."""

from __future__ import annotations

import asyncio

import pytest

from headwater import Client, Document, Prompt
from schemas import codec
from schemas.errors import (
    AnswerTimeout,
    BrokerUnreachable,
    ClientClosed,
    EventInvalid,
    RecordTooLarge,
    TopicMissing,
)
from schemas.events import Feedback, Message
from schemas.headers import header
from schemas.topics import DOCUMENTS, FEEDBACK, PROMPTS, TOPICS
from streams.admin import create_topics, describe_topics
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


async def present(kafka: KafkaSettings, topic_index: int = 0) -> list[Record]:
    """Everything in a topic now."""
    async with Subscription(kafka, TOPICS[topic_index], since="earliest") as subscription:
        return [record async for record in subscription.present()]


async def test_a_published_document_carries_cloudevents_headers(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.publish_document("Water is wet.", document_id="water", title="Water")
    (record,) = await present(kafka)
    assert record.key == b"water"
    assert codec.decode(DOCUMENTS, record.value or b"").title == "Water"
    assert header(record.headers, "ce_specversion") == "1.0"
    assert header(record.headers, "ce_type") == "io.headwater.document"
    assert header(record.headers, "content-type") == "application/json"
    assert (header(record.headers, "traceparent") or "").startswith("00-")


async def test_an_id_that_none_may_have_is_not_deleted(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        for document_id in ("", "d" * 257):
            with pytest.raises(EventInvalid, match="is no id"):
                await client.delete_document(document_id)
        with pytest.raises(TopicMissing, match="there is no 99"):
            await client.subscribe("documents", resume='{"99": 0}').open()
    assert await present(kafka) == []


async def test_deleting_publishes_a_tombstone(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.publish_document("Water is wet.", document_id="water")
        await client.delete_document("water")
    assert [record.value is None for record in await present(kafka)] == [False, True]


async def test_bulk_publishing_counts_and_keeps_the_order_of_a_key(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        documents = [Document(f"version {n}", document_id=f"d{n % 7}") for n in range(5_000)]
        assert await client.publish_documents(documents) == 5_000
    by_key: dict[bytes | None, list[int]] = {}
    for record in await present(kafka):
        document = codec.decode(DOCUMENTS, record.value or b"")
        by_key.setdefault(record.key, []).append(int(document.text.split()[1]))
    assert sum(map(len, by_key.values())) == 5_000
    assert all(versions == sorted(versions) for versions in by_key.values())


async def test_what_is_too_large_or_over_a_limit_is_refused_before_it_is_sent(
    kafka: KafkaSettings,
) -> None:
    async with Client(kafka) as client:
        with pytest.raises(RecordTooLarge, match="Split it"):
            await client.publish_document("é" * 900_000)
        with pytest.raises(EventInvalid, match=r"\$\.text"):
            await client.publish_document("e" * 400_001)
        with pytest.raises(EventInvalid, match="rating"):
            await client.feedback(prompt_id="p", rating=2.0)
        with pytest.raises(EventInvalid, match="one of rating"):
            await client.feedback(prompt_id="p")
    assert await present(kafka) == []


async def test_feedback_gets_an_id_of_its_own(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.feedback(prompt_id="p", rating=1.0, labels={"tone": "kind"})
        await client.feedback(Feedback(prompt_id="p", correction="better"))
    records = await present(kafka, TOPICS.index(FEEDBACK))
    events = [codec.decode(FEEDBACK, record.value or b"") for record in records]
    assert len({event.feedback_id for event in events}) == 2


async def test_a_missing_topic_says_how_to_create_it(broker, kafka: KafkaSettings) -> None:  # type: ignore[no-untyped-def]
    nowhere = KafkaSettings(bootstrap=broker.address, topic_prefix="nowhere.")
    async with Client(nowhere) as client:
        with pytest.raises(TopicMissing, match="headwater topics --create"):
            await client.publish_document("lost")
        with pytest.raises(TopicMissing, match="headwater topics --create"):
            await client.ask("lost")


async def test_no_broker_is_said_at_once() -> None:
    nobody = KafkaSettings(bootstrap="127.0.0.1:1", connect_timeout_s=1.0)
    with pytest.raises(BrokerUnreachable, match="headwater up"):
        async with Client(nobody):
            pass


async def test_topics_are_created_once_and_described(kafka: KafkaSettings) -> None:
    assert await asyncio.to_thread(create_topics, kafka) == []
    states = await asyncio.to_thread(describe_topics, kafka)
    assert [state.exists for state in states] == [True] * len(TOPICS)


async def test_a_subscriber_resumes_by_position(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.publish_documents(Document(str(n), f"d{n}") for n in range(20))
        seen, position = [], ""
        first = client.subscribe("documents", since="earliest")
        async with first:
            async for document in first:
                seen.append(document.text)
                if len(seen) == 8:
                    break
            # The eighth was taken but the iterator was not asked for the ninth.
            position = first.position
        again = client.subscribe("documents", resume=position)
        async with again:
            async for document in again:
                seen.append(document.text)
                if set(seen) == {str(n) for n in range(20)}:
                    break
    assert len(seen) == 21  # The eighth came twice, the others once.


async def test_a_named_subscriber_goes_on_where_it_stopped(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.publish_documents(Document(str(n), f"d{n}") for n in range(10))

        async def take(count: int) -> list[str]:
            taken: list[str] = []
            subscription = client.subscribe("documents", since="earliest", name="reader")
            async with subscription:
                async for record in subscription.records():
                    taken.append(record.key_text or "")
                    subscription.note(record)
                    if len(taken) == count:
                        return taken
            return taken

        first, second = await take(6), await take(4)
    assert sorted(first + second) == [f"d{n}" for n in range(10)]


async def test_a_named_subscriber_misses_nothing_while_it_is_away(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        async with client.subscribe("documents", name="away"):
            pass
        await client.publish_document("while away", document_id="a")
        async with client.subscribe("documents", name="away") as subscription:
            document = await asyncio.wait_for(anext(aiter(subscription)), 10)
    assert document.text == "while away"


async def test_without_agents_an_answer_times_out_with_advice(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        answer = await client.ask("Is anybody there?", silence_s_max=0.3)
        with pytest.raises(AnswerTimeout, match=r"no retrieve and no generate.*headwater up"):
            await answer.finished()


async def test_a_closed_client_says_so(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        await client.publish_document("in time")
    with pytest.raises(ClientClosed):
        await client.publish_document("too late")
    async with client:
        await client.publish_document("again")
    assert len(await present(kafka)) == 2


async def test_prompts_name_the_reply_partition_of_their_client(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        one, two = await client.ask("one"), await client.ask("two")
        assert one.prompt_id != two.prompt_id
    prompts = [
        codec.decode(PROMPTS, record.value or b"")
        for record in await present(kafka, TOPICS.index(PROMPTS))
    ]
    assert len({prompt.reply_partition for prompt in prompts}) == 1
    assert prompts[0].reply_partition is not None


async def test_publishing_many_prompts_at_once(kafka: KafkaSettings) -> None:
    async with Client(kafka) as client:
        prompts = (Prompt([Message("user", f"question {n}")]) for n in range(300))
        assert await client.publish_prompts(prompts) == 300
