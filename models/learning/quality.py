"""How good an adapter is on questions with known answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from models.engine.chat import encode_chat
from models.engine.protocol import Message
from models.learning.batches import EncodedAnswer, pad
from models.learning.losses import answer_log_likelihoods, correction_losses
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors

_ROWS = 32


def mean_loss(model: AdaptedModel, adapter: Tensors, answers: Sequence[EncodedAnswer]) -> float:
    """Negative log-likelihood by token, each answer its own mean, averaged over the answers."""
    return sum(answer_losses(model, adapter, answers)) / len(answers)


@torch.no_grad()
def answer_losses(
    model: AdaptedModel, adapter: Tensors, answers: Sequence[EncodedAnswer]
) -> list[float]:
    """Negative log-likelihood by token of each answer."""
    device = model.model.device
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].prompt + answers[i].answer))
    losses = [0.0] * len(answers)
    with model.using(adapter):
        for begin in range(0, len(order), _ROWS):
            chosen = order[begin : begin + _ROWS]
            batch = pad([answers[index] for index in chosen], device)
            found = correction_losses(*answer_log_likelihoods(model.model, batch))
            for index, loss in zip(chosen, found.tolist(), strict=True):
                losses[index] = loss
    return losses


@torch.no_grad()
def greedy_answers(
    model: AdaptedModel,
    adapter: Tensors,
    tokenizer: PreTrainedTokenizerBase,
    end_token: int,
    conversations: Sequence[Sequence[Message]],
    tokens_max: int = 64,
) -> list[str]:
    """The likeliest answer, token by token, to each conversation."""
    prompts = [encode_chat(tokenizer, messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    generate = getattr(model.model, "generate")  # noqa: B009 - typed as a Tensor by the stubs.
    with model.using(adapter):
        for begin in range(0, len(order), _ROWS):
            chosen = order[begin : begin + _ROWS]
            batch = pad([EncodedAnswer(prompts[i], []) for i in chosen], model.model.device)
            tokens = generate(
                input_ids=batch.tokens,
                attention_mask=batch.mask,
                max_new_tokens=tokens_max,
                do_sample=False,
                eos_token_id=end_token,
                pad_token_id=end_token,
            )
            new = tokens[:, batch.tokens.shape[1] :]
            for index, text in zip(
                chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
            ):
                answers[index] = text.strip()
    return answers
