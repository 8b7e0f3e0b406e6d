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


@torch.no_grad()
def mean_loss(model: AdaptedModel, adapter: Tensors, answers: Sequence[EncodedAnswer]) -> float:
    """Negative log-likelihood by token, each answer its own mean, averaged over the answers."""
    device = model.model.device
    ordered = sorted(answers, key=lambda a: len(a.prompt) + len(a.answer))
    total = 0.0
    with model.using(adapter):
        for begin in range(0, len(ordered), _ROWS):
            batch = pad(ordered[begin : begin + _ROWS], device)
            losses = correction_losses(*answer_log_likelihoods(model.model, batch))
            total += float(losses.sum())
    return total / len(answers)


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
