"""When what was studied may go live: better on fresh passages, and not much worse in general.

Fresh passages belong to documents that are never studied. General texts are compared with the
base model, not with what is live: of many small steps, each forgiven, the sum would be a fall.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.learning.batches import EncodedAnswer
from models.learning.gate import LiveVersion
from models.learning.rounds import Judgement
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from models.studying.general import General
from models.studying.perplexity import token_loss

# With fewer fresh passages than these, chance decides.
FRESH_MIN = 4


class StudyGate:
    """Judges candidates of one model."""

    def __init__(self, model: AdaptedModel, general: General, tolerance: float) -> None:
        """`tolerance` is how much worse than the base's a general loss may be, nats by token."""
        self._model = model
        self._general = {"general_loss": general.gate_texts, "chat_loss": general.gate_answers}
        self._tolerance = tolerance
        self._base = self._general_losses({})

    def judge(
        self, candidate: Tensors, live: LiveVersion, fresh: Sequence[EncodedAnswer]
    ) -> Judgement:
        """`fresh` are passages that neither has studied."""
        found = self._general_losses(candidate)
        figures = found | {f"{name}_base": loss for name, loss in self._base.items()}
        figures["fresh_passages"] = float(len(fresh))
        if len(fresh) < FRESH_MIN:
            return Judgement(released=False, evaluation=figures)
        new, old = token_loss(self._model, candidate, fresh), self._live_loss(live, fresh)
        figures |= {"fresh_loss": new, "fresh_loss_live": old}
        harmless = all(loss <= self._base[name] + self._tolerance for name, loss in found.items())
        return Judgement(released=harmless and new < old, evaluation=figures)

    def _live_loss(self, live: LiveVersion, fresh: Sequence[EncodedAnswer]) -> float:
        # It may have another shape than the candidate's: the settings may have changed since.
        model = AdaptedModel(self._model.model, live.shape, packed=True)
        try:
            return token_loss(model, live.adapter, fresh)
        finally:
            model.close()

    def _general_losses(self, adapter: Tensors) -> dict[str, float]:
        return {
            name: token_loss(self._model, adapter, rows)
            for name, rows in self._general.items()
            if rows
        }
