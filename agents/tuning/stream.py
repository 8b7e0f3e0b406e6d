"""Where a tuning's examples come from: the topic, while the river flows, or a public file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from agents.learning.taken_examples import read_example, starts
from agents.tuning.contest import Contest
from agents.tuning.told import ended_statistic, rung_statistics
from models.engine.protocol import Message
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid, EventInvalid
from schemas.topics import EXAMPLES, VERDICTS, Topic
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings

T = TypeVar("T")
Report = Callable[[Contest], None]

log = logging.getLogger("headwater.tune")


class PublicExample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An example that is nobody's secret; one JSON object a line. One of correction and rating."""

    messages: tuple[Message, ...]
    completion: str = ""
    correction: str | None = None
    rating: float | None = None

    def __post_init__(self) -> None:
        if self.correction is None and self.rating is None:
            raise ValueError("one of correction and rating is needed")


async def tune_on_topic(
    kafka: KafkaSettings, open_contest: Callable[[], Contest], report: Report
) -> Contest:
    """Follows the topic until one candidate is left, and publishes what each rung came to.

    The contest belongs to a thread, in which it is made and closed. `report` is told of each rung.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-tune")
    loop = asyncio.get_running_loop()
    contest = await loop.run_in_executor(thread, open_contest)
    producer = Producer(kafka)
    topic = VERDICTS if contest.guarded else EXAMPLES
    follower = Follower(kafka, topic, starts(topic, contest.offsets))
    try:
        await loop.run_in_executor(thread, contest.resume)
        told = await _tell(producer, contest, 0, report)
        await follower.open()
        while not contest.done:
            for record in await follower.batch():
                await loop.run_in_executor(thread, _take, contest, topic, record)
                told = await _tell(producer, contest, told, report)
        await producer.send(ended_statistic(contest))
    finally:
        contest.stop()
        await follower.close()
        await loop.run_in_executor(thread, contest.close)
        thread.shutdown(wait=True)
        await producer.close()
    return contest


def tune_on_file(path: Path, contest: Contest, report: Report) -> None:
    """Reads the file until one candidate is left. Raises DataInvalid for a line that is no example,
    and where there are too few of them."""
    contest.resume()
    report(contest)
    begin = contest.offsets.get(str(path.name), 0)
    for number, example in enumerate(read_public(path)):
        if number >= begin and not contest.done:
            told = len(contest.results)
            contest.add(example, path.name, number + 1)
            if len(contest.results) > told:
                report(contest)
    if not contest.done:
        raise DataInvalid(
            f"{path} ends in rung {len(contest.results)} of the tuning.",
            "Add examples to its end and go on, or begin one of another name with fewer --users.",
        )


def read_public(path: Path) -> Iterator[TrainingExample]:
    """The examples of a file. Raises DataInvalid, with the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataInvalid(
            f"The examples cannot be read: {error}.", "Name a JSONL file with --public."
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            found = msgspec.json.decode(line, type=PublicExample)
        except (msgspec.DecodeError, ValueError) as error:
            raise DataInvalid(
                f"Line {number} of {path} is no example: {error}.",
                'Write {"messages": [{"role": "user", "content": "…"}], "correction": "…"}.',
            ) from error
        yield TrainingExample(
            example_id=f"{path.name}/{number}",
            user=f"{path.name}/{number}",
            messages=found.messages,
            completion=found.completion,
            correction=found.correction,
            rating=found.rating,
        )


def _take(contest: Contest, topic: Topic, record: Record) -> None:
    try:
        example = read_example(topic, record.value)
        if example is not None:
            contest.add(example, f"{topic.name}/{record.partition}", record.offset + 1)
    except EventInvalid:
        # learn buries it; here it is only passed over.
        log.debug("example at %d/%d passed over", record.partition, record.offset)


async def _tell(producer: Producer, contest: Contest, told: int, report: Report) -> int:
    """Publishes the rungs that are over; those that were told before a restart once more, alike."""
    for statistic in rung_statistics(contest, told):
        await producer.send(statistic)
    if len(contest.results) > told:
        report(contest)
    return len(contest.results)
