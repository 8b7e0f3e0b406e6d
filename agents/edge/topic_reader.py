"""A topic of the device's owner → the device's store: examples as they come.

The broker sees these examples, so the topic and the broker are the owner's: the operator of rounds
needs access to neither. For each batch of records:
1. keep what is an example; what is not is counted in the log and left out,
2. write down how far reading came, in the same database.
Killed between the two, the same records come again, and an example counts once.

This is the only process of a device that knows Kafka; it runs only where a topic is named.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Final

from agents.edge.example_files import decode_example
from agents.edge.settings import EdgeSettings
from agents.edge.store import ExampleStore
from agents.runtime.ready_file import touch_ready_file
from schemas.errors import DataInvalid, HeadwaterError
from schemas.events import Event
from schemas.topics import Topic
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings, load

_RETRY_S: Final = 10.0

log = logging.getLogger("headwater.edge")


def keep(store: ExampleStore, topic: str, records: Sequence[Record]) -> tuple[int, int]:
    """Steps 1 and 2 for a batch; how many were new, and how many were no examples."""
    new = refused = 0
    for record in records:
        if record.value is None:
            continue
        try:
            new += store.add(decode_example(record.value))
        except DataInvalid as error:
            refused += 1
            log.warning("offset %d is no example: %s", record.offset, error.message)
    for partition in {record.partition for record in records}:
        last = max(record.offset for record in records if record.partition == partition)
        store.note_position(topic, partition, last + 1)
    return new, refused


async def follow(kafka: KafkaSettings, name: str, store: ExampleStore) -> None:
    """Takes records for ever. Raises BrokerUnreachable, TopicMissing and their like."""
    # A topic of somebody else's making: its name is whole, and nothing of ours decodes it.
    topic = Topic(name, Event, key="", description="")
    whole = kafka.model_copy(update={"topic_prefix": ""})
    follower = Follower(whole, topic, store.positions(name))
    await follower.open()
    try:
        touch_ready_file()
        log.info("following %s", name)
        while True:
            if records := await follower.batch():
                new, refused = keep(store, name, records)
                log.info("%d new examples, %d records that are none", new, refused)
    finally:
        await follower.close()


async def follow_on(kafka: KafkaSettings, name: str, store: ExampleStore) -> None:
    """The same through days without the broker."""
    while True:
        try:
            await follow(kafka, name, store)
        except HeadwaterError as error:
            log.warning("%s", error)
        await asyncio.sleep(_RETRY_S)


def main() -> None:
    """Run the reader with the settings of the environment."""
    logging.basicConfig(stream=sys.stdout, level="INFO", format="[%(asctime)s] %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--topic", required=True)
    topic = parser.parse_args().topic
    store = ExampleStore(load(EdgeSettings).folder.expanduser().absolute())
    try:
        asyncio.run(follow_on(load(KafkaSettings), topic, store))
    finally:
        store.close()


if __name__ == "__main__":
    main()
