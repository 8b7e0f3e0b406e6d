"""The whole river with real agents and a tiny model: what a user of the topics can rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import confluent_kafka
import pytest
import pytest_asyncio
from workers import Workers

from headwater import Client, Retrieval, Sampling
from infra.freshness import Freshness
from schemas import codec, ids
from schemas.errors import GenerationFailed
from schemas.events import Context, Generation
from schemas.headers import header, trace_id
from schemas.topics import CONTEXTS, GENERATIONS, PASSAGES, PROMPTS, TOKENS, Topic
from streams.hops import DOCUMENT_HOPS, PROMPT_HOPS, missing_workers
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

WAIT_S_MAX = 60
SHORT = Sampling(max_tokens=8)
NO_PASSAGES = Retrieval(top_k=0)


@pytest_asyncio.fixture
async def client(river: KafkaSettings, agents: Workers) -> AsyncIterator[Client]:
    async with Client(river) as client:
        yield client


async def publish_and_wait(client: Client, text: str, document_id: str, **fields: Any) -> None:
    freshness = Freshness(client)
    await freshness.open()
    try:
        await client.publish_document(text, document_id=document_id, **fields)
        async for _ in freshness.of([document_id]):
            pass
    finally:
        await freshness.close()


async def passages_for(client: Client, question: str, **wanted: Any) -> list[Any]:
    answer = await client.ask(question, sampling=SHORT, retrieval=Retrieval(**wanted))
    return (await answer.finished()).passages


async def until_absent(client: Client, question: str, document_id: str) -> None:
    """Deletions report no freshness: ask until the passages are gone."""
    async with asyncio.timeout(WAIT_S_MAX):
        while document_id in [p.document_id for p in await passages_for(client, question)]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def of_key(kafka: KafkaSettings, topic: Topic, key: str) -> list[Record]:
    async with Subscription(kafka, topic, since="earliest") as subscription:
        return [record async for record in subscription.present() if record.key_text == key]


async def test_an_answer_streams_and_ends_with_its_record(client: Client) -> None:
    await publish_and_wait(client, "Lake Anna is 7 metres deep.", "anna", title="Anna")
    answer = await client.ask(
        "How deep is Lake Anna?", sampling=SHORT, conversation_id="c1", user_id="u1"
    )
    streamed = [delta.text async for delta in answer]
    generation = answer.generation
    assert generation is not None
    assert "".join(streamed) == generation.text == answer.text
    assert generation.passages[0].document_id == "anna"
    assert generation.passages == answer.passages
    assert generation.usage.completion_tokens == 8
    assert generation.finish_reason == "length"
    assert (generation.conversation_id, generation.user_id) == ("c1", "u1")
    timings = generation.timings
    assert timings.prompted_ms <= timings.retrieved_ms <= timings.started_ms
    assert timings.first_token_ms is not None
    assert timings.started_ms <= timings.first_token_ms <= timings.finished_ms


async def test_one_trace_joins_all_records_of_a_prompt(
    client: Client, river: KafkaSettings
) -> None:
    answer = await client.ask("Where does it end?", sampling=SHORT, retrieval=NO_PASSAGES)
    await answer.finished()
    traces = {
        trace_id(header(record.headers, "traceparent"))
        for topic in (PROMPTS, CONTEXTS, TOKENS, GENERATIONS)
        for record in await of_key(river, topic, answer.prompt_id)
    }
    assert len(traces) == 1
    assert None not in traces


async def test_chunks_go_to_the_reply_partition_alone(client: Client, river: KafkaSettings) -> None:
    answer = await client.ask("Where to?", sampling=SHORT, retrieval=NO_PASSAGES)
    await answer.finished()
    (prompt,) = await of_key(river, PROMPTS, answer.prompt_id)
    wanted = codec.decode(PROMPTS, prompt.value or b"").reply_partition
    chunks = await of_key(river, TOKENS, answer.prompt_id)
    assert {record.partition for record in chunks} == {wanted}
    events = [codec.decode(TOKENS, record.value or b"") for record in chunks]
    assert [event.index for event in events] == list(range(len(events)))
    assert [event.generation is not None for event in events] == [False] * (len(events) - 1) + [
        True
    ]


async def test_many_answers_at_once_do_not_mix(client: Client) -> None:
    async def one(number: int) -> tuple[str, Generation]:
        answer = await client.ask(
            f"question {number}", sampling=SHORT, retrieval=NO_PASSAGES, user_id=f"u{number}"
        )
        generation = await answer.finished()
        return answer.text, generation

    pairs = await asyncio.gather(*(one(number) for number in range(24)))
    assert [generation.user_id for _, generation in pairs] == [f"u{n}" for n in range(24)]
    assert all(text == generation.text for text, generation in pairs)


async def test_the_same_seed_gives_the_same_text(client: Client) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=7)
    texts = []
    for _ in range(2):
        answer = await client.ask("Say something.", sampling=sampling, retrieval=NO_PASSAGES)
        texts.append((await answer.finished()).text)
    assert texts[0] == texts[1]


async def test_what_a_prompt_waits_for_can_be_told(client: Client, river: KafkaSettings) -> None:
    assert await asyncio.to_thread(missing_workers, river, (*DOCUMENT_HOPS, *PROMPT_HOPS)) is None
    answer = await client.ask("Where are you?", sampling=SHORT, retrieval=NO_PASSAGES)
    assert "agent has not" in await answer.waits_for()
    await answer.finished()
    assert await answer.waits_for() == "the generate agent had begun with it"


async def test_a_cancelled_prompt_stops_and_says_so(client: Client) -> None:
    # The more often a token was used the likelier it gets: this answer does not end by itself.
    endless = Sampling(max_tokens=900, frequency_penalty=-2.0)
    answer = await client.ask("Never stop.", sampling=endless, retrieval=NO_PASSAGES)
    async for _ in answer:
        await answer.cancel()
        break
    # Leaving the loop early must not lose the end of the answer for somebody else.
    async with client.subscribe("generations", since="earliest") as subscription:
        async with asyncio.timeout(WAIT_S_MAX):
            async for generation in subscription:
                if generation.prompt_id == answer.prompt_id:
                    break
    assert generation.finish_reason == "cancelled"
    assert 0 < generation.usage.completion_tokens < 900


async def test_subscribers_follow_one_conversation(client: Client) -> None:
    async with client.subscribe("tokens", conversation_id="mine") as subscription:
        for conversation in ("other", "mine"):
            answer = await client.ask(
                "Hello?", sampling=SHORT, retrieval=NO_PASSAGES, conversation_id=conversation
            )
            await answer.finished()
        chunks = aiter(subscription)
        while True:
            chunk = await asyncio.wait_for(anext(chunks), WAIT_S_MAX)
            assert chunk.conversation_id == "mine"
            if chunk.finish_reason is not None:
                break


async def test_an_edited_document_replaces_its_old_passages(client: Client) -> None:
    long_text = "\n\n".join(
        f"Quartz paragraph {n}. " + "It glitters a lot. " * 30 for n in range(6)
    )
    await publish_and_wait(client, long_text, "quartz")
    before = await passages_for(client, "Which quartz paragraph glitters?", top_k=2)
    assert [p.document_id for p in before] == ["quartz", "quartz"]
    await publish_and_wait(client, "Basalt is dark.", "quartz")
    after = await passages_for(client, "Which quartz paragraph glitters? Basalt?", top_k=20)
    assert [p.text for p in after if p.document_id == "quartz"] == ["Basalt is dark."]


async def test_a_deleted_document_is_gone_everywhere(client: Client, river: KafkaSettings) -> None:
    await publish_and_wait(client, "The secret lake is called Mirror.", "secret")
    assert (await passages_for(client, "secret lake Mirror"))[0].document_id == "secret"
    await client.delete_document("secret")
    await until_absent(client, "secret lake Mirror", "secret")
    last_state: dict[str, bool] = {}
    async with Subscription(river, PASSAGES, since="earliest") as subscription:
        async for record in subscription.present():
            last_state[record.key_text or ""] = record.value is not None
    assert last_state[ids.passage_id("secret", 0)] is False


async def test_filters_and_score_floor_narrow_the_search(client: Client) -> None:
    await publish_and_wait(client, "Copper is red.", "copper", metadata={"kind": "metal", "n": 1})
    await publish_and_wait(
        client, "Cherries are red.", "cherry", metadata={"kind": "fruit", "n": 2}
    )
    found = await passages_for(client, "What is red?", filters={"kind": "fruit"})
    assert {p.document_id for p in found} == {"cherry"}
    assert await passages_for(client, "What is red?", score_floor=1.0) == []


async def test_what_a_person_types_into_a_console_producer_is_answered(
    client: Client, river: KafkaSettings
) -> None:
    """No key, no headers, no ids: the place of the record names it."""
    producer = confluent_kafka.Producer({"bootstrap.servers": river.bootstrap})
    async with client.subscribe("generations") as subscription:
        value = json.dumps(
            {
                "messages": [{"role": "user", "content": "Typed by hand"}],
                "sampling": {"max_tokens": 4},
                "conversation_id": "typed",
            }
        )
        producer.produce(river.topic_name(PROMPTS), value)
        producer.flush()
        events = aiter(subscription)
        while True:
            generation = await asyncio.wait_for(anext(events), WAIT_S_MAX)
            if generation.conversation_id == "typed":
                break
    assert generation.prompt_id.startswith(river.topic_name(PROMPTS))
    assert generation.usage.completion_tokens == 4


async def test_a_prompt_published_twice_is_answered_once(
    client: Client, river: KafkaSettings
) -> None:
    answer = await client.ask("Once?", sampling=SHORT, retrieval=NO_PASSAGES)
    first = await answer.finished()
    again = await client.ask(
        "Once?", sampling=SHORT, retrieval=NO_PASSAGES, prompt_id=answer.prompt_id
    )
    assert await again.finished() == first
    assert len(await of_key(river, GENERATIONS, answer.prompt_id)) == 1


async def test_a_prompt_too_long_for_the_model_ends_with_an_error(client: Client) -> None:
    answer = await client.ask("word " * 3_000, sampling=SHORT, retrieval=NO_PASSAGES)
    with pytest.raises(GenerationFailed, match="tokens"):
        await answer.finished()


async def test_contexts_hold_all_that_generation_needs(
    client: Client, river: KafkaSettings
) -> None:
    answer = await client.ask("Self-contained?", sampling=SHORT, retrieval=NO_PASSAGES)
    await answer.finished()
    (record,) = await of_key(river, CONTEXTS, answer.prompt_id)
    context: Context = codec.decode(CONTEXTS, record.value or b"")
    assert context.prompt.messages[-1].content == "Self-contained?"
    assert context.prompt_id == answer.prompt_id


async def test_several_answers_in_json_reach_the_asker(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"deep": {"type": "boolean"}, "metres": {"type": "integer", "maximum": 99}},
        "required": ["deep"],
    }
    sampling = Sampling(max_tokens=60, temperature=1.0, seed=3, n=3, json_schema=schema)
    answer = await client.ask("How deep?", sampling=sampling, retrieval=NO_PASSAGES)
    read: dict[int, str] = {}
    async for delta in answer:
        read[delta.choice] = ("" if delta.restart else read.get(delta.choice, "")) + delta.text
    generation = await answer.finished()
    texts = [generation.text, *(other.text for other in generation.alternatives)]
    assert [read[choice] for choice in range(3)] == texts
    assert all(isinstance(json.loads(text)["deep"], bool) for text in texts)
    assert answer.text == generation.text


async def test_another_client_reads_an_answer_again_and_on(
    client: Client, river: KafkaSettings
) -> None:
    told: list[tuple[str, int]] = []
    sampling = Sampling(max_tokens=60, temperature=1.0, seed=5, n=2, logprobs=True)
    async with Client(river, on_resumed=lambda *said: told.append(said)) as first:
        asked = await first.ask("How deep?", sampling=sampling, retrieval=NO_PASSAGES)
        async for _ in asked:
            break
        assert asked.place is not None
        resumed = [await client.resume(asked.prompt_id, asked.place) for _ in range(2)]
        read = [[delta async for delta in answer] for answer in resumed]
        generation = await asked.finished()
        async with asyncio.timeout(WAIT_S_MAX):
            while len(told) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert told == [(asked.prompt_id, answer.resumed_at) for answer in resumed]
    assert [answer.generation for answer in resumed] == [generation] * 2
    for deltas in read:
        mine = [delta for delta in deltas if delta.choice == 0]
        assert "".join(delta.text for delta in mine) == generation.text
        assert [one for delta in mine for one in delta.logprobs] == generation.logprobs
