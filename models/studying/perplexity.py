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


def text_loss(
    model: AdaptedModel, adapter: Tensors, texts: Sequence[Sequence[int]], between: int
) -> float:
    """Nats by token over all `texts`, each read alone, after `between`."""
    rows = [EncodedAnswer([between], list(tokens)) for tokens in texts if tokens]
    rows.sort(key=lambda row: len(row.answer))
    total = 0.0
    for begin in range(0, len(rows), _ROWS):
        some = rows[begin : begin + _ROWS]
        losses = answer_losses(model, adapter, some)
        total += sum(loss * len(row.answer) for loss, row in zip(losses, some, strict=True))
    return total / sum(len(row.answer) for row in rows)


def perplexity(loss: float) -> float:
    """exp of a loss in nats by token."""
    return math.exp(loss)
