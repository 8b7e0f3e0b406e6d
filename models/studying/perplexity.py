"""How well an adapter knows texts: negative log-likelihood by token, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.learning.batches import EncodedAnswer
from models.learning.quality import answer_losses
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors

# Computed at once: the logits of all their tokens are in memory together.
_ROWS = 8


def token_loss(model: AdaptedModel, adapter: Tensors, rows: Sequence[EncodedAnswer]) -> float:
    """Nats by token over all answers of `rows`; each token counts the same."""
    ordered = sorted(rows, key=lambda row: len(row.prompt) + len(row.answer))
    total = 0.0
    for begin in range(0, len(ordered), _ROWS):
        some = ordered[begin : begin + _ROWS]
        losses = answer_losses(model, adapter, some)
        total += sum(loss * len(row.answer) for loss, row in zip(losses, some, strict=True))
    return total / sum(len(row.answer) for row in ordered)


def perplexity(loss: float) -> float:
    """exp of a loss in nats by token."""
    return math.exp(loss)
