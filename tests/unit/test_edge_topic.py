"""A device takes examples from its owner's topic, each once, wherever it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.edge.store import ExampleStore
from agents.edge.topic_reader import keep
from streams.records import Record

TOPIC = "anna.examples"


def record(offset: int, value: bytes | None, partition: int = 0) -> Record:
    return Record(TOPIC, partition, offset, None, value, [], 0)


RECORDS = [
    record(4, b'{"prompt": "How deep?", "answer": "Nine metres."}'),
    record(5, b"not JSON"),
    record(6, None),
    record(7, b'{"prompt": "An example without an answer"}'),
    record(2, b'{"prompt": "How wide?", "answer": "Forty metres."}', partition=3),
]


def test_examples_are_kept_and_what_is_none_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ExampleStore(tmp_path)
    assert keep(store, TOPIC, RECORDS) == (2, 2)
    assert {one.correction for one in store.examples()} == {"Nine metres.", "Forty metres."}
    assert store.positions(TOPIC) == {0: 8, 3: 3}
    assert store.positions("another") == {}
    # The log says where, and nothing of what was written.
    assert "offset 5" in caplog.text
    assert "without an answer" not in caplog.text
    store.close()


def test_records_that_come_again_count_once(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    keep(store, TOPIC, RECORDS)
    assert keep(store, TOPIC, RECORDS) == (0, 2)
    assert store.count() == 2
    store.close()
