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
# The longest answer computed with others is at most so much longer than the shortest: padding costs
# what text does.
_LONGER_MAX = 1.25


def mean_loss(model: AdaptedModel, adapter: Tensors, answers: Sequence[EncodedAnswer]) -> float:
    """Negative log-likelihood by token, each answer its own mean, averaged over the answers."""
    return sum(answer_losses(model, adapter, answers)) / len(answers)


@torch.no_grad()
def answer_losses(
    model: AdaptedModel, adapter: Tensors, answers: Sequence[EncodedAnswer]
) -> list[float]:
    """Negative log-likelihood by token of each answer."""
    device = model.model.device
    losses = [0.0] * len(answers)
    with model.using(adapter):
        for chosen in _of_like_length([len(a.prompt) + len(a.answer) for a in answers]):
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


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    """The places in `lengths`, shortest first, in groups that waste little on padding."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        group = groups[-1] if groups else []
        fits = group and lengths[place] <= _LONGER_MAX * lengths[group[0]]
        if fits and len(group) < _ROWS:
            group.append(place)
        else:
            groups.append([place])
    return groups
