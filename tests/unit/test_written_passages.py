"""Which passages a document leaves behind, and the same knowledge read back from the topic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.passages.written_passages import WrittenPassages

# A history: each step gives a document so many passages (0 deletes it).
HISTORIES = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5)))
Log = list[tuple[str, int, bool]]


def write(history: list[tuple[str, int]]) -> tuple[WrittenPassages, Log]:
    """The counts after a history, and the records (document, index, alive) it wrote."""
    written, log = WrittenPassages(), []
    for document_id, count in history:
        gone = written.replace(document_id, count)
        log += [(document_id, index, True) for index in range(count)]
        log += [(document_id, int(key.rpartition("#")[2]), False) for key in gone]
    return written, log


def read_back(log: Log) -> WrittenPassages:
    written = WrittenPassages()
    for document_id, index, alive in log:
        written.note(document_id, index, alive)
    return written


def compacted(log: Log) -> Log:
    """Only the latest record of each key, in the order of the topic."""
    latest = {(document_id, index): place for place, (document_id, index, _) in enumerate(log)}
    return [log[place] for place in sorted(latest.values())]


def counts(written: WrittenPassages) -> dict[str, int]:
    """What deleting each document would take back."""
    return {name: len(written.replace(name, 0)) for name in ("a", "b")}


def test_a_shorter_document_loses_its_last_passages() -> None:
    written = WrittenPassages()
    assert written.replace("a", 3) == []
    assert written.replace("a", 1) == ["a#1", "a#2"]
    assert written.replace("a", 2) == []
    assert written.replace("a", 0) == ["a#0", "a#1"]
    assert written.replace("a", 0) == []


def test_documents_do_not_touch_each_other() -> None:
    written = WrittenPassages()
    written.replace("a", 2)
    written.replace("a#1", 1)
    assert written.replace("a", 0) == ["a#0", "a#1"]
    assert written.replace("a#1", 0) == ["a#1#0"]


@given(HISTORIES)
def test_the_topic_read_back_tells_the_same(history: list[tuple[str, int]]) -> None:
    written, log = write(history)
    assert counts(read_back(log)) == counts(written)


@given(HISTORIES, st.integers(0, 40), st.booleans())
def test_so_does_a_topic_that_was_compacted_up_to_anywhere(
    history: list[tuple[str, int]], head: int, tombstones_kept: bool
) -> None:
    written, log = write(history)
    later = {(document_id, index) for document_id, index, _ in log[head:]}
    cleaned = [
        record
        for record in compacted(log[:head])
        if record[:2] not in later and (tombstones_kept or record[2])
    ]
    assert counts(read_back(cleaned + log[head:])) == counts(written)
