"""What the topic's records ask for, in whatever order a restart finds them."""

from __future__ import annotations

from typing import Literal

from agents.rounds.queue import RoundQueue
from schemas.events import FederatedRound

Status = Literal["asked", "started", "finished", "failed"]


def queue_of(*records: tuple[str, Status], adapter: str = "default") -> RoundQueue:
    queue = RoundQueue("default")
    for offset, (round_id, status) in enumerate(records):
        queue.take(FederatedRound(round_id, status, adapter, 0), 0, offset)
    return queue


def test_rounds_wait_in_the_order_in_which_they_were_asked_for() -> None:
    queue = queue_of(("a", "asked"), ("b", "asked"))
    first = queue.next()
    assert first is not None and (first.event.round_id, first.offset) == ("a", 0)
    queue.end("a")
    second = queue.next()
    assert second is not None and second.event.round_id == "b"


def test_what_has_ended_is_not_done_again_even_if_asked_for_twice() -> None:
    assert queue_of(("a", "asked"), ("a", "asked"), ("a", "failed"), ("a", "asked")).next() is None
    queue = queue_of(("a", "asked"))
    queue.end("a")
    queue.take(FederatedRound("a", "asked", "default", 0), 0, 1)
    assert queue.next() is None


def test_a_round_that_was_begun_by_one_who_died_counts_its_attempts() -> None:
    waiting = queue_of(("a", "asked"), ("a", "started"), ("a", "started")).next()
    assert waiting is not None and waiting.attempts == 2


def test_rounds_of_another_adapter_are_for_another_agent() -> None:
    assert queue_of(("a", "asked"), adapter="other").next() is None
