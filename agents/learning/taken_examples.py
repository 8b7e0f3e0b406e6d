"""What learning takes of records of `examples`, or of `verdicts`, and from where on."""

from __future__ import annotations

from models.learning.examples import TrainingExample
from schemas import codec
from schemas.events import Example, Verdict
from schemas.topics import Topic


def let_through(verdict: Verdict) -> tuple[Example | None, float]:
    """The example that a verdict lets through, if it does, and its weight."""
    taken = verdict.decision in ("accepted", "released") and verdict.weight > 0.0
    if not taken or verdict.outcome is None:
        return None, 0.0
    return verdict.outcome.example, verdict.weight


def training_example(example: Example, weight: float = 1.0) -> TrainingExample:
    """An example as the learner takes it."""
    return TrainingExample(
        example_id=example.example_id,
        user=example.user,
        messages=tuple({"role": m.role, "content": m.content} for m in example.messages),
        completion=example.completion,
        correction=example.correction,
        rating=example.reward,
        weight=weight,
    )


def read_example(topic: Topic, value: bytes | None) -> TrainingExample | None:
    """What learning takes of a record: an example, or of a verdict what it lets through.

    Raises EventInvalid.
    """
    event: Example | Verdict = codec.decode(topic, value or b"")
    example, weight = let_through(event) if isinstance(event, Verdict) else (event, 1.0)
    return None if example is None else training_example(example, weight)


def starts(topic: Topic, offsets: dict[str, int]) -> dict[int, int]:
    """Where reading goes on, by partition; those not named are read from their beginning."""
    places = {tuple(source.split("/", 1)): offset for source, offset in offsets.items()}
    return {int(number): offset for (name, number), offset in places.items() if name == topic.name}
