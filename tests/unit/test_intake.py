"""Offsets may be committed in their order only, and only by the partition's owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agents.runtime.intake import Intake, Taken

pytestmark = pytest.mark.asyncio


class Stream:
    """As much of a Faust stream as an intake uses: records by partition and offset."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self.acknowledged: list[tuple[int, int]] = []

    def put(self, *places: tuple[int, int]) -> None:
        for partition, offset in places:
            message = SimpleNamespace(
                topic="prompts",
                partition=partition,
                offset=offset,
                key=None,
                value=b"",
                headers=None,
                timestamp=0.0,
            )
            self._events.put_nowait(SimpleNamespace(message=message))

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Any]:
        while not self._events.empty():
            yield self._events.get_nowait()

    async def ack(self, event: Any) -> None:
        self.acknowledged.append((event.message.partition, event.message.offset))


async def taken(intake: Intake, stream: Stream, *places: tuple[int, int]) -> Sequence[Taken]:
    stream.put(*places)
    await intake.fill(stream)  # type: ignore[arg-type]
    return await anext(intake.batches(len(places)))


async def test_a_record_is_acknowledged_after_all_before_it_in_its_partition() -> None:
    intake, stream = Intake(), Stream()
    intake.owns({0, 1})
    first, second, third, other = await taken(intake, stream, (0, 7), (0, 8), (0, 9), (1, 4))
    await third.done()
    await second.done()
    assert stream.acknowledged == []
    await other.done()
    assert stream.acknowledged == [(1, 4)]
    await first.done()
    assert stream.acknowledged == [(1, 4), (0, 7), (0, 8), (0, 9)]


async def test_records_of_a_lost_partition_are_left_to_their_new_owner() -> None:
    intake, stream = Intake(), Stream()
    intake.owns({0, 1})
    stream.put((0, 7), (1, 4))
    await intake.fill(stream)  # type: ignore[arg-type]
    intake.owns({1})
    batch = await anext(intake.batches(2))
    assert [(item.record.partition, item.record.offset) for item in batch] == [(1, 4)]


async def test_what_is_read_again_after_a_rebalance_counts_anew() -> None:
    intake, stream = Intake(), Stream()
    intake.owns({0})
    before = await taken(intake, stream, (0, 7), (0, 8))
    again = await taken(intake, stream, (0, 7), (0, 8))
    await before[0].done()
    await before[1].done()
    assert stream.acknowledged == []
    await again[0].done()
    assert stream.acknowledged == [(0, 7)]


async def test_a_partition_that_comes_back_does_not_wait_for_what_was_dropped() -> None:
    intake, stream = Intake(), Stream()
    intake.owns({0})
    await taken(intake, stream, (0, 7))
    intake.owns(set())
    intake.owns({0})
    (later,) = await taken(intake, stream, (0, 50))
    await later.done()
    assert stream.acknowledged == [(0, 50)]
