"""Prompts, answers and feedback on them, written to Kafka as the agents and clients would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas import codec, headers, ids
from schemas.events import (
    Context,
    Example,
    Feedback,
    FoundPassage,
    Generation,
    Message,
    Prompt,
    Timings,
)
from schemas.events import Usage as TokenUsage
from schemas.topics import CONTEXTS, FEEDBACK, GENERATIONS
from streams.fenced_writer import FencedWriter
from streams.producer import Outgoing, Producer
from streams.settings import KafkaSettings

PASSAGE = FoundPassage("doc#0", "doc", "The river is nine metres deep.", 1.0)


def a_context(prompt_id: str, user_id: str | None = None) -> Context:
    prompt = Prompt([Message("user", f"How deep is {prompt_id}?")], prompt_id, user_id=user_id)
    return Context(prompt_id, prompt, [PASSAGE], 1, 1)


def a_generation(prompt_id: str, text: str = "Deep.", **fields: str | None) -> Generation:
    return Generation(
        generation_id=ids.generation_id(prompt_id),
        prompt_id=prompt_id,
        text=text,
        finish_reason="stop",
        model="tiny",
        model_version="base",
        attempt=1,
        passages=[PASSAGE],
        cited=[],
        usage=TokenUsage(3, 1),
        timings=Timings(1, 1, 1, 2),
        **fields,
    )


def a_feedback(prompt_id: str, number: int = 0, **fields: object) -> Feedback:
    given = {"correction": f"{prompt_id} is nine metres deep."} | fields
    return Feedback(prompt_id, f"{prompt_id}-feedback-{number}", f"user of {prompt_id}", **given)


def an_example(number: int, example_id: str, user: str) -> Example:
    """A correction, as join writes it."""
    return Example(
        example_id=example_id,
        user=user,
        prompt_id=f"p{number}",
        generation_id=f"g{number}",
        model_version="base",
        messages=[Message(role="user", content=f"How deep is river {number}?")],
        completion="Very deep.",
        correction="Nine metres.",
    )


async def publish_exchanges(
    kafka: KafkaSettings, prompt_ids: Sequence[str], feedback: Sequence[Feedback]
) -> None:
    """Contexts and feedback one by one and meanwhile, in transactions, the finished records."""
    producer, writer = Producer(kafka), FencedWriter(kafka, "test-generations")
    await writer.open()
    try:
        await asyncio.gather(
            *(producer.send(_outgoing_feedback(item)) for item in feedback),
            *(producer.send(_outgoing_context(prompt_id)) for prompt_id in prompt_ids),
            *(writer.write([_outgoing_generation(prompt_id)]) for prompt_id in prompt_ids),
        )
    finally:
        await producer.close()


def _outgoing_feedback(feedback: Feedback) -> Outgoing:
    made = headers.make_headers(FEEDBACK, feedback.feedback_id or "", "/test")
    return Outgoing(FEEDBACK, feedback.prompt_id, codec.checked(FEEDBACK, feedback), made)


def _outgoing_context(prompt_id: str) -> Outgoing:
    value = codec.checked(CONTEXTS, a_context(prompt_id))
    return Outgoing(CONTEXTS, prompt_id, value, headers.make_headers(CONTEXTS, prompt_id, "/test"))


def _outgoing_generation(prompt_id: str) -> Outgoing:
    made = headers.make_headers(GENERATIONS, prompt_id, "/test")
    value = codec.checked(GENERATIONS, a_generation(prompt_id))
    return Outgoing(GENERATIONS, prompt_id, value, made)
