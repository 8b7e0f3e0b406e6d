"""The examples that rounds of a ledger learned from, read back from the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.learning.taken_examples import read_example
from models.learning.examples import Cohort, TrainingExample
from models.privacy.ledger import Round
from schemas.errors import DataInvalid, EventInvalid
from schemas.topics import EXAMPLES, VERDICTS, Topic
from streams.follower import Follower
from streams.settings import KafkaSettings


async def read_cohorts(
    kafka: KafkaSettings, rounds: Sequence[Round], used: Mapping[str, int], guarded: bool = False
) -> list[Cohort]:
    """The cohort of each of the rounds, which are all from the first on.

    `used` says in which round each example was; those of a `guarded` adapter are in the guard's
    verdicts. What lies before the offsets of the last round is read. Raises DataInvalid where the
    topic has lost some.
    """
    topic = VERDICTS if guarded else EXAMPLES
    ends = {
        int(source.rpartition("/")[2]): offset
        for record in rounds
        for source, offset in record.offsets.items()
    }
    follower = Follower(kafka, topic, "earliest")
    found: dict[str, TrainingExample] = {}
    try:
        await follower.open()
        begins = dict(follower.positions)
        while not follower.caught_up and _behind(follower.positions, ends):
            for record in await follower.batch():
                if record.offset < ends.get(record.partition, 0):
                    _take(topic, record.value, used, found)
    finally:
        await follower.close()
    _check_complete(topic, found, used, begins)
    return [_cohort(record, found, used) for record in rounds]


def _behind(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return any(positions.get(partition, end) < end for partition, end in ends.items())


def _take(
    topic: Topic, value: bytes | None, used: Mapping[str, int], found: dict[str, TrainingExample]
) -> None:
    try:
        example = read_example(topic, value)
    except EventInvalid:
        # learn left it out as well, and buried it.
        return
    if example is not None and example.example_id in used:
        # The first of two is the one that was learned from.
        found.setdefault(example.example_id, example)


def _check_complete(
    topic: Topic,
    found: Mapping[str, TrainingExample],
    used: Mapping[str, int],
    begins: Mapping[int, int],
) -> None:
    missing = used.keys() - found.keys()
    if missing:
        first = min(used[example] for example in missing)
        offsets = ", ".join(f"{part} at {offset}" for part, offset in sorted(begins.items()))
        raise DataInvalid(
            f"{len(missing)} of {len(used)} examples are not in {topic.name} any more, some of "
            f"them of round {first}; its partitions begin now: {offsets}.",
            "Retention has taken them, and a version cannot be made again without: give the topic "
            "a longer retention.ms for those to come.",
        )


def _cohort(record: Round, found: Mapping[str, TrainingExample], used: Mapping[str, int]) -> Cohort:
    """The users in the ledger's order; each one's examples are in one partition, in order."""
    examples: dict[str, list[TrainingExample]] = {user: [] for user in record.users}
    for example in found.values():
        if used[example.example_id] == record.number and example.user in examples:
            examples[example.user].append(example)
    return Cohort(record.number, examples)
