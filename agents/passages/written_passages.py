"""How many passages each document has, read back from `passages` itself.

Documents and their passages share a partition number, so whoever works on a partition of
`documents` can restore this from the same partition of `passages`: the topic is its own changelog.
"""

from __future__ import annotations

from schemas.ids import passage_id
from schemas.topics import PASSAGES
from streams.follower import Follower
from streams.settings import KafkaSettings


class WrittenPassages:
    """Passage counts of the documents of one partition."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def note(self, document_id: str, index: int, alive: bool) -> None:
        """Take account of one passage record, in the order of the topic."""
        count = self._counts.get(document_id, 0)
        count = max(count, index + 1) if alive else min(count, index)
        if count:
            self._counts[document_id] = count
        else:
            self._counts.pop(document_id, None)

    def replace(self, document_id: str, count: int) -> list[str]:
        """Set a document's count; returns the passage ids that are thereby gone."""
        before = self._counts.pop(document_id, 0)
        if count:
            self._counts[document_id] = count
        return [passage_id(document_id, index) for index in range(count, before)]


async def read_back(kafka: KafkaSettings, partition: int) -> WrittenPassages:
    """Restore the counts of one partition by reading it to its end."""
    written = WrittenPassages()
    follower = Follower(kafka, PASSAGES, "earliest", [partition])
    await follower.open()
    try:
        async for record in follower.until_caught_up():
            document_id, _, index = (record.key_text or "").rpartition("#")
            if index.isdecimal():
                written.note(document_id, int(index), record.value is not None)
    finally:
        await follower.close()
    return written
