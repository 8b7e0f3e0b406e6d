"""Tokens of conversations, padded on the left so that all answers end together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from models.engine.chat import encode_chat
from models.engine.protocol import Message


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """Tokens of a prompt, and of the answer with its end token."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens`, `mask`, `positions`: (rows, length); `targets`: (rows, answer_length), -100 where
    there is no answer token."""

    tokens: Tensor
    mask: Tensor
    positions: Tensor
    targets: Tensor


def encode_answer(
    tokenizer: PreTrainedTokenizerBase,
    end_token: int,
    messages: Sequence[Message],
    text: str,
    tokens_max: int,
) -> EncodedAnswer:
    """An answer to `messages`, both cut so that together they have `tokens_max` tokens at most.

    The answer keeps its beginning, the prompt its end. Raises EventInvalid for messages that the
    chat template refuses.
    """
    answer = tokenizer(text, add_special_tokens=False)["input_ids"] + [end_token]
    answer = answer[: tokens_max - 1]
    prompt = encode_chat(tokenizer, messages)
    return EncodedAnswer(prompt[-(tokens_max - len(answer)) :], answer)


def pad(answers: Sequence[EncodedAnswer], device: torch.device) -> Batch:
    """One batch; the padding is masked, so no row depends on the lengths of the others."""
    length = max(len(a.prompt) + len(a.answer) for a in answers)
    answer_length = max(len(a.answer) for a in answers)
    tokens = torch.zeros(len(answers), length, dtype=torch.long)
    mask = torch.zeros(len(answers), length, dtype=torch.long)
    targets = torch.full((len(answers), answer_length), -100)
    for row, answer in enumerate(answers):
        both = answer.prompt + answer.answer
        tokens[row, length - len(both) :] = torch.tensor(both)
        mask[row, length - len(both) :] = 1
        targets[row, answer_length - len(answer.answer) :] = torch.tensor(answer.answer)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Batch(tokens.to(device), mask.to(device), positions.to(device), targets.to(device))
