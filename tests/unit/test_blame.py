"""One bad record in a batch is found, and only that one is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agents.runtime.blame import together_or_alone
from schemas.errors import BrokerUnreachable, IndexRefused

pytestmark = pytest.mark.asyncio


class Worker:
    """Doubles numbers; fails at some. Remembers what it was given and what was refused."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        self._failures = failures
        self.given: list[list[int]] = []
        self.refused: list[tuple[int, Exception]] = []

    async def work(self, items: Sequence[int]) -> list[int]:
        self.given.append(list(items))
        for item in items:
            if item in self._failures:
                raise self._failures[item]
        return [2 * item for item in items]

    async def refuse(self, item: int, error: Exception) -> None:
        self.refused.append((item, error))


async def test_a_good_batch_is_worked_on_once() -> None:
    worker = Worker({})
    assert await together_or_alone([1, 2], worker.work, worker.refuse) == [(1, 2), (2, 4)]
    assert worker.given == [[1, 2]]


async def test_nothing_is_not_worked_on() -> None:
    worker = Worker({})
    assert await together_or_alone([], worker.work, worker.refuse) == []
    assert worker.given == []


async def test_the_bad_one_is_refused_with_its_reason_and_the_rest_goes_on_in_order() -> None:
    error = IndexRefused("no such filter")
    worker = Worker({2: error})
    assert await together_or_alone([1, 2, 3], worker.work, worker.refuse) == [(1, 2), (3, 6)]
    assert worker.refused == [(2, error)]


async def test_one_alone_is_not_tried_twice() -> None:
    worker = Worker({1: ValueError("bad")})
    assert await together_or_alone([1], worker.work, worker.refuse) == []
    assert worker.given == [[1]]


async def test_what_is_no_records_fault_ends_the_work() -> None:
    worker = Worker({2: BrokerUnreachable("gone")})
    with pytest.raises(BrokerUnreachable):
        await together_or_alone([1, 2, 3], worker.work, worker.refuse)
    assert worker.given == [[1, 2, 3]]
    assert worker.refused == []


async def test_a_broker_that_goes_away_between_the_tries_ends_the_work_too() -> None:
    worker = Worker({1: ValueError("bad"), 2: BrokerUnreachable("gone")})
    with pytest.raises(BrokerUnreachable):
        await together_or_alone([1, 2, 3], worker.work, worker.refuse)
    assert [item for item, _ in worker.refused] == [1]
