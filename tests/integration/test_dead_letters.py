"""Nothing unprocessable stops the flow (law 2), and an operator can replay it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import confluent_kafka
import msgspec
import pytest
from malformed import document_kinds, prompt_kinds
from malformed_inside import context_kinds, passage_kinds
from workers import Workers

from headwater import Client, Retrieval, Sampling
from infra.dead_letters import replay
from schemas import codec
from schemas.errors import Fenced
from schemas.events import DeadLetter
from schemas.topics import CONTEXTS, DEAD_LETTERS, DOCUMENTS, PASSAGES, PROMPTS
from streams.records import Record
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

RECORDS = 1_000
WAIT_S_MAX = 120


async def letters(kafka: KafkaSettings) -> list[DeadLetter]:
    async with Subscription(kafka, DEAD_LETTERS, since="earliest") as subscription:
        return [
            codec.decode(DEAD_LETTERS, record.value or b"")
            async for record in subscription.present()
        ]


async def test_a_thousand_malformed_records_of_forty_kinds_do_not_stop_the_flow(
    river: KafkaSettings, agents: Workers
) -> None:
    before = len(await letters(river))
    rng = random.Random(20)
    sent: list[tuple[str, bytes | None, bytes]] = []
    refused: list[object] = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": river.bootstrap,
            # What is over a topic's size fits the broker all the same.
            "compression.type": "lz4",
            "message.max.bytes": DEAD_LETTERS.batch_bytes_max,
        }
    )
    kinds = [(DOCUMENTS, kind) for kind in document_kinds()]
    kinds += [(PROMPTS, kind) for kind in prompt_kinds()]
    kinds += [(PASSAGES, kind) for kind in passage_kinds()]
    kinds += [(CONTEXTS, kind) for kind in context_kinds()]
    for number in range(RECORDS):
        topic, kind = kinds[number % len(kinds)]
        key, value = kind(rng)
        name = river.topic_name(topic)
        producer.produce(name, value, key, on_delivery=lambda error, _: refused.append(error))
        producer.poll(0)
        sent.append((name, key, value))
    producer.flush()
    assert set(refused) == {None}

    async with Client(river) as client:
        answer = await client.ask(
            "Still there?", sampling=Sampling(max_tokens=4), retrieval=Retrieval(top_k=0)
        )
        assert (await answer.finished()).usage.completion_tokens == 4
    async with asyncio.timeout(WAIT_S_MAX):
        while len(found := await letters(river)) - before < RECORDS:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    fresh = found[before:]
    assert Counter((x.topic, x.key, x.value or b"") for x in fresh) == Counter(sent)
    assert all(letter.reason and letter.error == "EventInvalid" for letter in fresh)
    # Offsets are unique: nothing was buried twice.
    assert len({(x.topic, x.partition, x.offset) for x in fresh}) == RECORDS


def headwater(kafka: KafkaSettings, *arguments: str, status: int = 0) -> str:
    """What the command prints, and complains of, when it ends with this status."""
    env = {
        "HEADWATER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HEADWATER_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
    }
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def letter(topic: str, **fields: Any) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        partition=0,
        offset=3,
        agent="ingest",
        error="EventInvalid",
        reason="for a test",
        at_ms=1,
        key=b"doc",
        value=b'{"text": 1}',
        headers=[("colour", b"blue"), ("none", None)],
        **fields,
    )


def bury(kafka: KafkaSettings, *letters: DeadLetter) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap})
    for item in letters:
        producer.produce(kafka.topic_name(DEAD_LETTERS), msgspec.json.encode(item), b"doc")
    producer.flush()


async def documents(kafka: KafkaSettings) -> list[Record]:
    async with Subscription(kafka, DOCUMENTS, since="earliest") as subscription:
        return [record async for record in subscription.present()]


async def test_dead_letters_are_listed_and_replayed_once(kafka: KafkaSettings) -> None:
    """On a river without agents, so that the replayed record is seen as it was."""
    bury(kafka, letter(kafka.topic_name(DOCUMENTS)))
    listed = msgspec.json.decode(headwater(kafka, "dead-letters", "list", "--json"))
    assert (listed["id"], listed["reason"], listed["replayed"]) == ("0@0", "for a test", False)

    assert "replayed 0@0" in headwater(kafka, "dead-letters", "replay", "--all")
    assert "nothing to replay" in headwater(kafka, "dead-letters", "replay", "--all")
    assert "0@0 (replayed)" in headwater(kafka, "dead-letters", "list")
    refused = headwater(kafka, "dead-letters", "replay", "0@0", status=1)
    assert "not replayed 0@0: it was replayed before; --again" in refused
    assert "replayed 0@0" in headwater(kafka, "dead-letters", "replay", "0@0", "--again")
    replayed = await documents(kafka)
    assert [(record.key, record.value) for record in replayed] == [(b"doc", b'{"text": 1}')] * 2
    assert ("colour", b"blue") in replayed[0].headers


async def test_a_letter_that_cannot_be_replayed_does_not_stop_the_others(
    kafka: KafkaSettings,
) -> None:
    ours, foreign = kafka.topic_name(DOCUMENTS), "somebody.else.documents"
    lost = letter(ours, value_kept=False)
    bury(kafka, letter(ours), letter(foreign), lost, letter(ours), letter(foreign))
    for fresh in ([0, 3], []):
        # The first time two are replayed; the second time they are not replayed again.
        told = headwater(kafka, "dead-letters", "replay", "--all", "--json", status=1)
        outcomes = [msgspec.json.decode(line) for line in told.splitlines()]
        assert [o["id"] for o in outcomes if o["replayed"]] == [f"0@{n}" for n in fresh]
        failed = {o["id"]: o["reason"] for o in outcomes if not o["replayed"]}
        assert set(failed) == {"0@1", "0@2", "0@4"}
        assert f"came from {foreign}" in failed["0@1"]
        assert "was not kept" in failed["0@2"]
    assert len(await documents(kafka)) == 2
    told = headwater(kafka, "dead-letters", "replay", "0@99", "0@3", "--again", status=1)
    assert "not replayed 0@99: there is no such dead letter" in told
    assert "replayed 0@3 to" in told


async def test_a_letter_replayed_by_its_id_is_not_replayed_by_all(kafka: KafkaSettings) -> None:
    bury(kafka, *[letter(kafka.topic_name(DOCUMENTS))] * 3)
    assert [(o.id, o.replayed) async for o in replay(kafka, ["0@1"])] == [("0@1", True)]
    assert [o.id async for o in replay(kafka)] == ["0@0", "0@2"]
    assert [o.id async for o in replay(kafka, again=True)] == ["0@0", "0@1", "0@2"]
    assert len(await documents(kafka)) == 6


async def test_a_second_replay_takes_over_from_the_first(kafka: KafkaSettings) -> None:
    bury(kafka, *[letter(kafka.topic_name(DOCUMENTS))] * 4)
    first = replay(kafka)
    assert (await anext(first)).id == "0@0"
    assert [o.id async for o in replay(kafka)] == ["0@1", "0@2", "0@3"]
    with pytest.raises(Fenced, match="Another replay has begun"):
        await anext(first)
    assert len(await documents(kafka)) == 4
