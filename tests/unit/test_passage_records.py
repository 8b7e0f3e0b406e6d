"""What retrieve takes from `passages`, and what it refuses."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from malformed_inside import DIM, EMBEDDER, passage_kinds

from agents.passages.passage_records import decode_change
from schemas import codec
from schemas.errors import EventInvalid
from schemas.events import Passage
from streams.records import Record

MINILM: Any = SimpleNamespace(name=EMBEDDER, dim=DIM)


def record(key: bytes | None, value: bytes | None) -> Record:
    return Record("passages", 0, 7, key, value, [], timestamp_ms=123)


def test_a_passage_becomes_what_the_indexes_store() -> None:
    vector = np.zeros(DIM, dtype="<f4")
    vector[3] = 1.001  # bfloat16 is not exact
    passage = Passage("d#0", "d", 0, "wet", vector.tobytes(), EMBEDDER, 99, title="T")
    change = decode_change(record(b"d#0", codec.encode(passage)), MINILM)
    assert change.passage is not None
    assert (change.passage_id, change.passage.title, change.published_ms) == ("d#0", "T", 99)
    assert change.passage.written_ms == 123
    np.testing.assert_array_equal(change.passage.embedding, vector)


def test_a_tombstone_deletes() -> None:
    change = decode_change(record(b"d#0", None), MINILM)
    assert (change.passage_id, change.passage) == ("d#0", None)


@pytest.mark.parametrize("number", range(len(passage_kinds())))
def test_every_malformed_kind_is_refused_with_a_reason(number: int) -> None:
    key, value = passage_kinds()[number](random.Random(number))
    with pytest.raises(EventInvalid) as caught:
        decode_change(record(key, value), MINILM)
    assert caught.value.message and caught.value.remedy
