"""From a prompt and the passages found for it to a record of `contexts`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agents.retrieval.questions import Question
from models.retrieval.retriever import Found
from schemas import codec, headers
from schemas.clock import now_ms
from schemas.events import Choice, Context, FoundPassage, Prompt
from schemas.topics import CONTEXTS
from streams.producer import Outgoing
from streams.records import Record
from streams.spans import traceparent


def context_record(
    question: Question, found: Sequence[Found], sketch: Sequence[float] = ()
) -> Outgoing:
    """What generate reads; the tombstone of a prompt is passed on. Raises EventInvalid."""
    record = question.taken.record
    value = None
    if question.prompt is not None:
        value = fitting_context(
            question.prompt_id, question.prompt, found, record, sketch, question.choice
        )
    came = headers.header(record.headers, "traceparent")
    trace = traceparent(question.span) or headers.child_traceparent(came)
    question.span.set_attribute("headwater.passages", len(found))
    event = f"{question.prompt_id}@{record.offset}"
    made = headers.make_headers(CONTEXTS, event, "/agents/retrieve", trace)
    return Outgoing(CONTEXTS, question.prompt_id, value, made)


def fitting_context(
    prompt_id: str,
    prompt: Prompt,
    found: Sequence[Found],
    record: Record,
    sketch: Sequence[float] = (),
    choice: Choice | None = None,
) -> bytes:
    """The encoded context, with the lowest-ranked passages left out until it fits its topic."""
    context = Context(
        prompt_id=prompt_id,
        prompt=prompt,
        passages=[found_passage(item) for item in found],
        prompted_ms=record.timestamp_ms,
        retrieved_ms=now_ms(),
        choice=choice,
        prompt_sketch=list(sketch),
    )
    value = codec.encode(context)
    while len(value) > CONTEXTS.record_bytes_max and context.passages:
        context = msgspec.structs.replace(context, passages=context.passages[:-1])
        value = codec.encode(context)
    return value


def found_passage(found: Found) -> FoundPassage:
    """A search result as it travels."""
    return FoundPassage(
        passage_id=found.passage.passage_id,
        document_id=found.passage.document_id,
        text=found.passage.text,
        score=found.score,
        cosine=found.dense_score,
        bm25=found.keyword_score,
        title=found.passage.title,
        source=found.passage.source,
    )
