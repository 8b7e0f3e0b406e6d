"""A prompt, its answer and the feedback on it, as far as they are known: what `join` remembers."""

from __future__ import annotations

import msgspec

from agents.joining.pseudonyms import Pseudonyms
from models.adapting.features import answer_features
from models.prompting import build_messages
from schemas import codec, ids
from schemas.errors import EventInvalid
from schemas.events import Choice, Context, Example, Feedback, Generation, Message
from schemas.headers import header
from schemas.topics import FEEDBACK
from streams.records import Record


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What examples need of a finished record; `passages` are those that the model was shown.

    `features` and `choice` are for what adapts.
    """

    generation_id: str
    model_version: str
    text: str
    passages: list[str]
    user_id: str | None
    conversation_id: str | None
    features: dict[str, float] = {}
    choice: Choice | None = None


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prompt's state; `since_ms` is the broker's time of what came first.

    `waiting` is feedback that came before the answer was known, `taken` the ids of all that became
    examples, `trace` the answer's traceparent.
    """

    partition: int
    since_ms: int
    messages: list[Message] | None = None
    answered: Answered | None = None
    waiting: list[Record] = []
    taken: list[str] = []
    trace: str | None = None

    @property
    def complete(self) -> bool:
        return self.messages is not None and self.answered is not None


def asked(exchange: Exchange, context: Context) -> Exchange:
    """With the prompt known."""
    return msgspec.structs.replace(exchange, messages=context.prompt.messages)


def answered(exchange: Exchange, generation: Generation, trace: str | None = None) -> Exchange:
    """With the answer known."""
    found = Answered(
        generation.generation_id,
        generation.model_version,
        generation.text,
        [passage.text for passage in generation.passages],
        generation.user_id,
        generation.conversation_id,
        _features(generation),
        generation.choice,
    )
    return msgspec.structs.replace(exchange, answered=found, trace=trace)


def _features(generation: Generation) -> dict[str, float]:
    passages, timings = generation.passages, generation.timings
    return answer_features(
        answer=generation.text,
        cosines=[passage.cosine for passage in passages if passage.cosine is not None],
        cited=len(generation.cited),
        cut=generation.finish_reason == "length",
        logprobs=[token.logprob for token in generation.logprobs],
        duration_ms=timings.finished_ms - timings.prompted_ms,
        sketch=generation.prompt_sketch,
    )


def decode_feedback(record: Record) -> tuple[str, Feedback]:
    """The id of a piece of feedback, and the feedback. Raises EventInvalid.

    Without a feedback_id the CloudEvents id counts, which is one within its source; without that,
    the place of the record.
    """
    feedback: Feedback = codec.decode(FEEDBACK, record.value or b"")
    place = ids.record_id(record.topic, record.partition, record.offset)
    event_id = header(record.headers, "ce_id")
    named = f"{header(record.headers, 'ce_source')}#{event_id}" if event_id else None
    return feedback.feedback_id or named or place, feedback


def teaches(feedback: Feedback) -> bool:
    """Whether there is anything to learn from: labels alone, or a rating of 0, say nothing."""
    return feedback.correction is not None or bool(feedback.rating)


def make_example(
    exchange: Exchange, prompt_id: str, feedback_id: str, feedback: Feedback, names: Pseudonyms
) -> Example:
    """What the learner may train on: the model's own input, its answer, what a person said.

    Raises EventInvalid for a rating of an answer that has no text.
    """
    answer, messages = exchange.answered, exchange.messages
    if answer is None or messages is None:
        raise EventInvalid(
            f"The answer to {prompt_id[:80]} is not known.", "Publish the feedback again later."
        )
    if feedback.correction is None and not answer.text:
        raise EventInvalid("A rating of an answer without text.", "Send a correction with it.")
    shown = build_messages(
        [{"role": turn.role, "content": turn.content} for turn in messages], answer.passages
    )
    return Example(
        example_id=ids.example_id(prompt_id, feedback_id),
        user=names.of(
            user=feedback.user_id or answer.user_id,
            conversation=answer.conversation_id,
            prompt=prompt_id,
        ),
        prompt_id=prompt_id,
        generation_id=answer.generation_id,
        model_version=answer.model_version,
        messages=msgspec.convert(shown, list[Message]),
        completion=answer.text,
        reward=feedback.rating,
        correction=feedback.correction,
        labels=feedback.labels,
    )
