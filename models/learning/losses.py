"""What a row costs. Each row's loss depends on that row alone: no statistic of the batch enters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.learning.batches import Batch

# How far a rated answer may move from the base's: KTO's beta (Ethayarajh et al. 2024).
_BETA = 0.1


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
    each = -nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="none"
    )
    counts = (batch.targets != -100).sum(1)
    return each.view_as(batch.targets).sum(1), counts


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
