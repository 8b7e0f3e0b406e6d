"""What study must not unlearn: texts that are not of the stream, and answers in a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from transformers import PreTrainedTokenizerBase

from models.engine.protocol import Message
from models.learning.batches import EncodedAnswer, encode_answer
from models.studying.texts import TEXT_TOKENS_MAX, encode_texts, separator
from schemas.errors import DataInvalid

# Of so many, one is asked by the gate and the others are replayed in lessons.
_GATE_OF = 5


class GeneralItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text, or an answer to messages."""

    text: str = ""
    messages: tuple[Message, ...] = ()
    answer: str = ""


@dataclass(frozen=True, slots=True)
class General:
    """Rows to be replayed, and those that the gate asks: never the same."""

    replayed: Sequence[EncodedAnswer]
    gate_texts: Sequence[EncodedAnswer]
    gate_answers: Sequence[EncodedAnswer]


def read_general_set(path: Path) -> list[GeneralItem]:
    """Items of a JSONL file. Raises DataInvalid, with the line, and for a file without any."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataInvalid(
            f"The general texts cannot be read: {error}.",
            "Name a JSONL file with HEADWATER_STUDY_GENERAL_SET.",
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            item = msgspec.json.decode(line, type=GeneralItem)
        except msgspec.DecodeError as error:
            raise _invalid(path, number, str(error)) from error
        if bool(item.text) == bool(item.messages and item.answer):
            raise _invalid(path, number, "it is no text and no answer, or both")
        found.append(item)
    if not any(item.text for item in found):
        raise DataInvalid(f"{path} holds no text.", "Write some that are not of the stream.")
    return found


def encode_general(
    tokenizer: PreTrainedTokenizerBase, end_token: int, items: Sequence[GeneralItem]
) -> General:
    """Tokens of all items. Raises EventInvalid for messages that the chat template refuses."""
    rows = [_encoded(tokenizer, end_token, item) for item in items]
    asked = list(zip(items, rows, strict=True))[::_GATE_OF]
    return General(
        [row for number, row in enumerate(rows) if number % _GATE_OF],
        [row for item, row in asked if item.text],
        [row for item, row in asked if not item.text],
    )


def _encoded(
    tokenizer: PreTrainedTokenizerBase, end_token: int, item: GeneralItem
) -> EncodedAnswer:
    if not item.text:
        return encode_answer(tokenizer, end_token, item.messages, item.answer, TEXT_TOKENS_MAX)
    (tokens,) = encode_texts(tokenizer, [item.text])
    return EncodedAnswer([separator(tokenizer)], tokens)


def _invalid(path: Path, number: int, why: str) -> DataInvalid:
    return DataInvalid(
        f"Line {number} of {path} cannot be used: {why}.",
        'Write {"text": "…"} or {"messages": [{"role": "user", "content": "…"}], "answer": "…"}.',
    )
