"""The examples on a device's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.edge.example_files import read_examples
from agents.edge.store import ExampleStore
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid

SECRET = "my landlord is called Ambrose"


def an_example(text: str = SECRET) -> TrainingExample:
    return TrainingExample(
        example_id="",
        user="",
        messages=({"role": "user", "content": text},),
        correction="Nine metres.",
    )


def test_nothing_of_an_example_can_be_read_from_the_disk(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    store.add(an_example())
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Ambrose" not in written
    assert b"metres" not in written
    assert (tmp_path / "store.key").stat().st_mode & 0o077 == 0


def test_examples_come_back_and_the_same_one_counts_once(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    assert store.add(an_example())
    assert not store.add(an_example())
    store.close()
    store = ExampleStore(tmp_path)
    (found,) = store.examples()
    assert found.messages[0]["content"] == SECRET
    assert store.remove(found.example_id)
    assert store.count() == 0
    store.close()


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    store.add(an_example())
    store.close()
    (tmp_path / "store.key").unlink()
    store = ExampleStore(tmp_path)
    with pytest.raises(DataInvalid, match="not written with this device's key"):
        store.examples()
    store.close()


def test_the_account_says_what_left(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path)
    store.note_sent("r-1", 12, b"delta", 3.5)
    (sent,) = store.sent()
    assert (sent.round_id, sent.examples, sent.bytes) == ("r-1", 12, 5)
    assert store.sent(after=sent.number) == []
    store.close()


def test_a_file_of_examples_is_read_in_any_of_its_shapes(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(
        '{"prompt": "Deep?", "answer": "Nine metres."}\n'
        '{"messages": [{"role": "user", "content": "Deep?"}], "completion": "No.", "rating": -1}\n'
    )
    corrected, rated = read_examples(path)
    assert corrected.correction == "Nine metres."
    assert (rated.completion, rated.rating) == ("No.", -1.0)


@pytest.mark.parametrize("line", ["{}", '{"prompt": "Deep?"}', "nonsense", '{"promt": "Deep?"}'])
def test_a_line_that_teaches_nothing_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(f'{{"prompt": "Deep?", "answer": "Nine."}}\n{line}\n')
    with pytest.raises(DataInvalid, match="Line 2 of"):
        list(read_examples(path))
