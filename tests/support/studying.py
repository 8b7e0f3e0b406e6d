"""The agent that studies, as a real process on a tiny model, and passages for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workers import agent_parts

from infra.part import Part
from schemas import codec, ids
from schemas.events import Passage
from schemas.topics import PASSAGES
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings

GENERAL = [f"a general text about matter {n} and what it means" for n in range(8)]


def study_part(kafka: KafkaSettings, model: Path, folder: Path, **env: str) -> Part:
    """A worker that keeps all it knows in `folder`; lessons of four new passages."""
    general = folder / "general.jsonl"
    general.write_text("".join(json.dumps({"text": text}) + "\n" for text in GENERAL))
    settings = {
        "HEADWATER_STUDY_FOLDER": str(folder / "study"),
        "HEADWATER_STUDY_GENERAL_SET": str(general),
        "HEADWATER_STUDY_PASSAGES_NEW": "4",
        "HEADWATER_STUDY_LESSONS_PER_VERSION": "6",
        "HEADWATER_STUDY_IDLE_S": "1",
        "HEADWATER_STUDY_LEARNING_RATE": "0.01",
        # Random weights forget everything at once.
        "HEADWATER_STUDY_TOLERANCE": "10",
        "HEADWATER_STUDY_DTYPE": "float32",
        "HEADWATER_STUDY_DEVICE": "cpu",
        "HEADWATER_STUDY_NICE": "0",
        **env,
    }
    (part,) = agent_parts(kafka, model, ("study",))
    return replace(part, env={**part.env, **settings})


def passage(number: int) -> Passage:
    """The only passage of document `number`."""
    return Passage(
        passage_id=ids.passage_id(f"d{number}", 0),
        document_id=f"d{number}",
        index=0,
        text=f"The river carries document {number} down to the sea, again and again.",
        embedding=b"",
        embedder="none",
        published_ms=0,
    )


async def publish_passages(kafka: KafkaSettings, numbers: Sequence[int]) -> None:
    """In one partition, so that they are read in this order."""
    producer = Producer(kafka)
    for number in numbers:
        made = passage(number)
        await producer.send(Outgoing(PASSAGES, made.passage_id, codec.encode(made), [], 0))
    await producer.close()


async def delete_passage(kafka: KafkaSettings, number: int) -> None:
    """As ingest does when the document is deleted."""
    producer = Producer(kafka)
    await producer.send(Outgoing(PASSAGES, passage(number).passage_id, None, [], 0))
    await producer.close()
