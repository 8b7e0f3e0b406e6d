"""What one piece of feedback becomes: an outcome, and an example where it teaches."""

from __future__ import annotations

from typing import Final

from agents.joining.exchange import Exchange, make_example, teaches
from agents.joining.outcomes import make_outcome
from agents.joining.pseudonyms import Pseudonyms
from schemas import codec, headers
from schemas.events import Event, Feedback
from schemas.topics import EXAMPLES, OUTCOMES, Topic
from streams.producer import Outgoing
from streams.records import Record

SOURCE: Final = "/agents/join"


def made_records(
    exchange: Exchange,
    prompt_id: str,
    feedback_id: str,
    feedback: Feedback,
    record: Record,
    names: Pseudonyms,
    trace: str | None,
) -> tuple[str | None, list[Outgoing]]:
    """The id of the example that feedback makes, if it makes one, and all that is written.

    `trace` is the traceparent of its span; without one the records continue the prompt's trace.
    Raises EventInvalid.
    """
    came = exchange.trace or headers.header(record.headers, "traceparent")
    trace = trace or headers.child_traceparent(came)
    example, written = None, []
    if teaches(feedback):
        example = make_example(exchange, prompt_id, feedback_id, feedback, names)
        written.append(_outgoing(EXAMPLES, example, example.example_id, example.user, trace))
    outcome = make_outcome(
        exchange, prompt_id, feedback_id, feedback, example, names, record.timestamp_ms
    )
    name = outcome.outcome_id
    written.append(_outgoing(OUTCOMES, outcome, name, name, trace))
    return example.example_id if example else None, written


def _outgoing(topic: Topic, event: Event, event_id: str, key: str, trace: str | None) -> Outgoing:
    made = headers.make_headers(topic, event_id, SOURCE, trace)
    return Outgoing(topic, key, codec.checked(topic, event), made)
