"""Examples as a device owner writes them: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from models.engine.protocol import Message
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid

_SHAPE = (
    '{"prompt": "…", "answer": "…"}, or "messages" with "correction" or "completion" and "rating"'
)


class ExampleLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`answer` is the short name of `correction`; a rating is of the `completion`."""

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    answer: str | None = None
    correction: str | None = None
    completion: str = ""
    rating: Annotated[float, Meta(ge=-1.0, le=1.0)] | None = None


def training_example(line: ExampleLine) -> TrainingExample:
    """What the device keeps. Raises DataInvalid for a line that nothing can be learned from."""
    messages = line.messages
    if line.prompt is not None:
        messages = (*messages, {"role": "user", "content": line.prompt})
    correction = line.correction or line.answer
    rated = line.rating and line.completion
    if not messages or not (correction or rated):
        raise DataInvalid(
            "An example has no prompt, or nothing to learn from it.", f"Write {_SHAPE}."
        )
    return TrainingExample(
        example_id="",
        user="",
        messages=messages,
        completion=line.completion,
        correction=correction,
        rating=line.rating,
    )


def decode_example(line: bytes) -> TrainingExample:
    """The example in a line or a record. Raises DataInvalid where there is none."""
    try:
        return training_example(msgspec.json.decode(line, type=ExampleLine))
    except msgspec.DecodeError as error:
        raise DataInvalid(f"{error}", f"Write {_SHAPE}.") from error


def read_examples(path: Path) -> Iterator[TrainingExample]:
    """The examples of a JSONL file. Raises DataInvalid with the number of a line that is none."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            yield decode_example(line)
        except DataInvalid as error:
            raise DataInvalid(
                f"Line {number} of {path} is no example: {error.message}", f"Write {_SHAPE}."
            ) from error
