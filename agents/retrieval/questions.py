"""What a prompt asks of the index."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.trace import INVALID_SPAN, Span

from agents.runtime.identity import event_id
from agents.runtime.intake import Taken
from schemas import codec
from schemas.events import Choice, Prompt
from schemas.topics import PROMPTS
from streams.records import Record


@dataclass(frozen=True, slots=True)
class Question:
    """A decoded prompt; None is a tombstone: the prompt is cancelled.

    `choice` is the variant whose options the prompt has, where one was drawn for it.
    """

    taken: Taken
    prompt_id: str
    prompt: Prompt | None
    choice: Choice | None = None
    span: Span = INVALID_SPAN


def decode_prompt(record: Record) -> tuple[str, Prompt | None]:
    """The prompt_id and the prompt (None: a tombstone) in a record; raises EventInvalid."""
    if record.value is None:
        return event_id(record, None), None
    prompt: Prompt = codec.decode(PROMPTS, record.value)
    return event_id(record, prompt.prompt_id), prompt


def question_text(prompt: Prompt) -> str:
    """What to search for: the last thing that the user said."""
    turns = [message for message in prompt.messages if message.role == "user"] or prompt.messages
    return turns[-1].content
