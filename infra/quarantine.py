"""Feedback that the guard set aside: looking at it, and saying what is to become of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import Outcome, Verdict
from schemas.topics import OUTCOMES, VERDICTS
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings
from streams.subscription import Subscription

_SOURCE = "/cli"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one piece of feedback: done, or not for a reason."""

    outcome_id: str
    done: bool
    reason: str = ""


async def waiting(kafka: KafkaSettings) -> dict[str, Verdict]:
    """What is quarantined now, oldest first within each partition; by outcome_id."""
    found: dict[str, Verdict] = {}
    async with Subscription(kafka, VERDICTS, since="earliest") as subscription:
        async for verdict in subscription.present_events():
            # A worker that was killed says the same again; an operator's word is the last.
            if verdict.decision == "quarantined":
                found.setdefault(verdict.outcome_id, verdict)
            else:
                found.pop(verdict.outcome_id, None)
    return found


async def release(kafka: KafkaSettings, outcome_ids: Iterable[str] | None) -> list[Done]:
    """Let it be learned from, all of it where none is named; adapt publishes the new verdict."""
    return await _decide(kafka, outcome_ids, _released)


async def drop(kafka: KafkaSettings, outcome_ids: Iterable[str] | None) -> list[Done]:
    """It is never learned from; the verdict says so, and keeps it until the topic forgets it."""
    return await _decide(kafka, outcome_ids, _dropped)


async def _decide(
    kafka: KafkaSettings,
    outcome_ids: Iterable[str] | None,
    make: Callable[[Verdict, Outcome], Outgoing],
) -> list[Done]:
    quarantined = await waiting(kafka)
    chosen = list(quarantined) if outcome_ids is None else list(dict.fromkeys(outcome_ids))
    producer = Producer(kafka)
    found = []
    try:
        for name in chosen:
            verdict = quarantined.get(name)
            if verdict is None or verdict.outcome is None:
                found.append(Done(name, False, "it is not in quarantine"))
                continue
            await producer.send(make(verdict, verdict.outcome))
            found.append(Done(name, True))
    finally:
        await producer.close()
    return found


def _released(verdict: Verdict, outcome: Outcome) -> Outgoing:
    name = verdict.outcome_id
    again = msgspec.structs.replace(outcome, released=True)
    made = headers.make_headers(OUTCOMES, f"{name}/released", _SOURCE)
    return Outgoing(OUTCOMES, name, codec.checked(OUTCOMES, again), made)


def _dropped(verdict: Verdict, outcome: Outcome) -> Outgoing:
    name = verdict.outcome_id
    dropped = msgspec.structs.replace(
        verdict, decision="dropped", weight=0.0, at_ms=now_ms(), outcome=outcome
    )
    made = headers.make_headers(VERDICTS, f"{name}/dropped", _SOURCE)
    return Outgoing(VERDICTS, verdict.user, codec.checked(VERDICTS, dropped), made)
