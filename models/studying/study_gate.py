"""When what was studied may go live: better on fresh passages, and not much worse in general.

Fresh passages belong to documents that are never studied. General texts are compared with the
base model, not with what is live: of many small steps, each forgiven, the sum would be a fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.learning.gate import LiveVersion
from models.learning.rounds import Judgement
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from models.studying.perplexity import perplexity, text_loss

# With fewer fresh passages than these, chance decides.
FRESH_MIN = 4


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Tokens of general texts, and how much worse than the base's their loss may be, in nats."""

    general: Sequence[Sequence[int]]
    tolerance: float
    between: int


class StudyGate:
    """Judges candidates of one model."""

    def __init__(self, model: AdaptedModel, yardstick: Yardstick) -> None:
        self._model = model
        self._yardstick = yardstick
        self._general_base = self._loss({}, yardstick.general)

    def judge(
        self, candidate: Tensors, live: LiveVersion, fresh: Sequence[Sequence[int]]
    ) -> Judgement:
        """`fresh` are tokens of passages that neither has studied."""
        general = self._loss(candidate, self._yardstick.general)
        figures = {
            "general_loss": general,
            "general_loss_base": self._general_base,
            "general_perplexity": perplexity(general),
            "fresh_passages": float(len(fresh)),
        }
        if len(fresh) < FRESH_MIN:
            return Judgement(released=False, evaluation=figures)
        new, old = self._loss(candidate, fresh), self._live_loss(live, fresh)
        figures |= {"fresh_loss": new, "fresh_loss_live": old, "fresh_perplexity": perplexity(new)}
        harmless = general <= self._general_base + self._yardstick.tolerance
        return Judgement(released=harmless and new < old, evaluation=figures)

    def _live_loss(self, live: LiveVersion, fresh: Sequence[Sequence[int]]) -> float:
        # It may have another shape than the candidate's: the settings may have changed since.
        model = AdaptedModel(self._model.model, live.shape)
        try:
            return text_loss(model, live.adapter, fresh, self._yardstick.between)
        finally:
            model.close()

    def _loss(self, adapter: Tensors, texts: Sequence[Sequence[int]]) -> float:
        return text_loss(self._model, adapter, texts, self._yardstick.between)
