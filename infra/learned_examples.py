"""The examples that rounds of a ledger learned from, read back from the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.learn import training_example
from models.learning.examples import Cohort, TrainingExample
from models.privacy.ledger import Round
from schemas import codec
from schemas.errors import DataInvalid, EventInvalid
from schemas.events import Example
from schemas.topics import EXAMPLES
from streams.follower import Follower
from streams.settings import KafkaSettings


async def read_cohorts(
    kafka: KafkaSettings, rounds: Sequence[Round], used: Mapping[str, int]
) -> list[Cohort]:
    """The cohort of each of the rounds, which are all from the first on.

    `used` says in which round each example was. What lies before the offsets of the last round is
    read. Raises DataInvalid where the topic has lost some.
    """
    ends = {
        int(source.rpartition("/")[2]): offset
        for record in rounds
        for source, offset in record.offsets.items()
    }
    follower = Follower(kafka, EXAMPLES, "earliest")
    found: dict[str, TrainingExample] = {}
    try:
        await follower.open()
        begins = dict(follower.positions)
        while not follower.caught_up and _behind(follower.positions, ends):
            for record in await follower.batch():
                if record.offset < ends.get(record.partition, 0):
                    _take(record.value, used, found)
    finally:
        await follower.close()
    _check_complete(found, used, begins)
    return [_cohort(record, found, used) for record in rounds]


def _behind(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return any(positions.get(partition, end) < end for partition, end in ends.items())


def _take(value: bytes | None, used: Mapping[str, int], found: dict[str, TrainingExample]) -> None:
    try:
        example: Example = codec.decode(EXAMPLES, value or b"")
    except EventInvalid:
        # learn left it out as well, and buried it.
        return
    if example.example_id in used:
        # The first of two is the one that was learned from.
        found.setdefault(example.example_id, training_example(example))


def _check_complete(
    found: Mapping[str, TrainingExample], used: Mapping[str, int], begins: Mapping[int, int]
) -> None:
    missing = used.keys() - found.keys()
    if missing:
        first = min(used[example] for example in missing)
        offsets = ", ".join(f"{part} at {offset}" for part, offset in sorted(begins.items()))
        raise DataInvalid(
            f"{len(missing)} of {len(used)} examples are not in {EXAMPLES.name} any more, some of "
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
