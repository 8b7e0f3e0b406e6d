"""What a row costs. Each row's loss depends on that row alone: no statistic of the batch enters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.learning.batches import Batch

# How far a rated answer may move from the base's: KTO's beta (Ethayarajh et al. 2024).
_BETA = 0.1
# Computed at once: 3 MB for a vocabulary of 49,152.
_TOKENS = 16


def answer_log_likelihoods(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum over each row's answer of log p(token | before), and how many tokens; both (rows,)."""
    answer_length = batch.targets.shape[1]
    # Position i predicts token i + 1, so one more position than there are answer tokens.
    logits = model(
        input_ids=batch.tokens,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        logits_to_keep=answer_length + 1,
        use_cache=False,
    ).logits[:, :-1]
    answered = batch.targets != -100
    each: Tensor = _LogLikelihoods.apply(logits[answered], batch.targets[answered])
    rows = torch.arange(len(logits), device=each.device)[:, None].expand_as(answered)[answered]
    return each.new_zeros(len(logits)).index_add(0, rows, each), answered.sum(1)


def correction_losses(log_likelihoods: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood by token, each row its own mean; (rows,)."""
    return -log_likelihoods / counts


def preference_losses(log_likelihoods: Tensor, base: Tensor, ratings: Tensor) -> Tensor:
    """Likelier than the base where the rating is good, less likely where it is bad; (rows,).

    1 - sigmoid(beta * log(p / p_base)) with the sign of the rating, weighted by its size: KTO with
    its reference point fixed at 0. KTO estimates that point from the other rows of the batch, which
    would let one user's data into another's gradient.
    """
    gain = _BETA * (log_likelihoods - base)
    return ratings.abs() * torch.sigmoid(-ratings.sign() * gain)


class _LogLikelihoods(torch.autograd.Function):
    """log p of each target, float32 (tokens,), from logits (tokens, vocabulary) of any format.

    A few tokens at a time: as a whole, the logits in float32 and their gradient take hundreds of
    megabytes, and moving those to and fro takes longer than computing them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        totals = torch.cat([part.float().logsumexp(1) for part in logits.split(_TOKENS)])
        ctx.save_for_backward(logits, targets, totals)
        return logits.gather(1, targets[:, None])[:, 0].float() - totals

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        logits, targets, totals = ctx.saved_tensors
        found = torch.empty_like(logits)
        parts = (tensor.split(_TOKENS) for tensor in (found, logits, targets, totals, slopes[0]))
        for part, logit, target, total, slope in zip(*parts, strict=True):
            chances = (logit.float() - total[:, None]).exp_().mul_(-slope[:, None])
            part.copy_(chances.scatter_add_(1, target[:, None], slope[:, None]))
        return found, None
