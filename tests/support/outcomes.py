"""Outcomes as join would write them, and learners that take them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from agents.adapting.knowledge import Adapting
from agents.adapting.settings import AdaptSettings
from models.adapting.features import QUESTION_FEATURES
from schemas import codec, headers
from schemas.events import Choice, Outcome
from schemas.topics import OUTCOMES
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings

VARIANTS = '[{"name": "usual"}, {"name": "wide", "top_k": 8}]'


def adapting(folder: Path, acts: bool = True, **settings: object) -> Adapting:
    """Learners of two variants that keep what they know in `folder`."""
    given = {"variants": VARIANTS, "floor": 0.1, "folder": folder} | settings
    return Adapting(AdaptSettings.model_validate(given), acts, keeps_examples=False)


def an_outcome(number: int, **fields: object) -> Outcome:
    """One of a stream in which `wide` is liked and `usual` is not; the same number, the same one.

    Forty users, four versions of an answer each, and a second between two events.
    """
    drawn = random.Random(number)
    arm = drawn.choice(["usual", "wide"])
    features = [1.0, *(drawn.uniform(-1, 1) for _ in range(QUESTION_FEATURES - 1))]
    liked = 0.8 if arm == "wide" else -0.6
    given: dict[str, object] = {
        "outcome_id": f"outcome-{number}",
        "user": f"user-{drawn.randrange(40)}",
        "prompt_id": f"prompt-{number}",
        "generation_id": f"generation-{number}",
        "model_version": f"default-{number // 100}",
        "at_ms": 1_000_000 + 1_000 * number,
        "reward": max(-1.0, min(1.0, liked + drawn.gauss(0.0, 0.1))),
        "labels": {"intent": drawn.choice(["refund", "order"])},
        "predicted": {"intent": drawn.choice(["refund", "order", "other"])},
        "features": {"wide": float(arm == "wide"), "answer_chars": drawn.uniform(2, 6)},
        "answer_fingerprint": f"{arm}-{number % 4}",
        "choice": Choice(arm, 0.5, features=features),
    }
    return Outcome(**given | fields)  # type: ignore[arg-type]


async def publish_outcomes(kafka: KafkaSettings, outcomes: Iterable[Outcome]) -> None:
    """In this order, to the one partition."""
    producer = Producer(kafka)
    try:
        for outcome in outcomes:
            made = headers.make_headers(OUTCOMES, outcome.outcome_id, "/test")
            value = codec.checked(OUTCOMES, outcome)
            await producer.send(Outgoing(OUTCOMES, outcome.outcome_id, value, made))
    finally:
        await producer.close()
