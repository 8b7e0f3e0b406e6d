"""The student: one optimizer step for each lesson.

Every row counts the same, a short answer as much as 512 tokens of passages: counted by token,
answers have no weight, and are unlearned (docs/STUDYING.md). To follow the base model's
distribution on general texts instead was tried, and took three times as long on a processor
(docs/STUDYING.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.learning.batches import EncodedAnswer, pad
from models.learning.lora import LoraShape
from models.learning.losses import answer_log_likelihoods, correction_losses
from models.learning.optimizers import Optimizer, OptimizerSettings
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors


@dataclass(frozen=True, slots=True)
class StudentSettings:
    """The adapter's form, and how it moves."""

    shape: LoraShape
    optimizer: OptimizerSettings


class Student:
    """An adapter and its optimizer, which change together."""

    def __init__(self, model: AdaptedModel, settings: StudentSettings, adapter: Tensors) -> None:
        self.model = model
        self.adapter = {name: tensor.clone() for name, tensor in adapter.items()}
        # The learning rate does not fall: there is no last step.
        self._optimizer = Optimizer(settings.optimizer, self.adapter, rounds_max=1)

    def step(self, rows: Sequence[EncodedAnswer]) -> list[float]:
        """Learns from rows; returns the loss of each before, in nats by token.

        Row by row, so that memory does not grow with the lesson, and in order, so that the same
        lesson gives the same weights.
        """
        weights = {name: w.clone().requires_grad_() for name, w in self.adapter.items()}
        losses = []
        for row in rows:
            with self.model.using(weights):
                batch = pad([row], self.model.model.device)
                (loss,) = correction_losses(*answer_log_likelihoods(self.model.model, batch))
                (loss / len(rows)).backward()
            losses.append(float(loss.detach()))
        gradient = {
            name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()
        }
        self._optimizer.step(self.adapter, gradient)
        return losses

    def state(self) -> Tensors:
        """What `restore` needs, under one name each."""
        adapter = {f"adapter.{name}": t.detach().cpu().clone() for name, t in self.adapter.items()}
        return adapter | {
            f"optimizer.{name}": t.cpu() for name, t in self._optimizer.state().items()
        }

    def restore(self, state: Tensors) -> None:
        """Goes on as if there had been no restart."""
        for name, tensor in self.adapter.items():
            tensor.copy_(state[f"adapter.{name}"])
        prefix = "optimizer."
        own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        self._optimizer.restore(own)
