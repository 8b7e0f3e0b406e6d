"""The learner: one optimizer step for each cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from models.engine.chat import chat_end_token
from models.engine.load import Loaded
from models.learning.adapter_files import artifact_bytes
from models.learning.batches import encode_answer
from models.learning.cohort_gradient import (
    CohortGradient,
    Contribution,
    EncodedExample,
    cohort_gradient,
    contribution,
    summed,
)
from models.learning.examples import Cohort, TrainingExample
from models.learning.lora import LoraShape, Trained, trained_of
from models.learning.optimizers import Optimizer, OptimizerSettings
from models.learning.user_gradients import AdaptedModel
from models.privacy.adaptive import AdaptiveNorm
from models.privacy.mechanism import Mechanism
from models.privacy.noise import Tensors


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """`cohort_size` users make a round; their sum is divided by it, so it is fixed and public.

    `max_grad_norm` limits each user's contribution where the mechanism is private, and is where
    `adaptive` begins. `rows_max` rows are computed at once.
    """

    shape: LoraShape
    optimizer: OptimizerSettings
    cohort_size: int
    max_grad_norm: float = 1.0
    adaptive: AdaptiveNorm | None = None
    rows_max: int = 16
    tokens_max: int = 512


class Learner:
    """Adapter, optimizer and mechanism, which change together.

    A step that fails half-way leaves them unlike each other: restore the last state then.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: LearnerSettings,
        mechanism: Mechanism,
        adapter: Tensors,
        trained: Trained = "both",
    ) -> None:
        self.mechanism = mechanism
        self.adapter = {name: tensor.clone() for name, tensor in adapter.items()}
        # Of the adapter, what steps change.
        self.trained = trained_of(self.adapter, trained)
        # The last live version that this learning knows of.
        self._anchor = {name: tensor.clone() for name, tensor in adapter.items()}
        self.max_grad_norm = settings.max_grad_norm
        self._settings = settings
        self._tokenizer = loaded.tokenizer
        self.end_token = end_token_of(loaded)
        self._model = AdaptedModel(loaded.model, settings.shape)
        self._optimizer = Optimizer(settings.optimizer, self.trained, mechanism.plan.rounds_max)

    def close(self) -> None:
        """Takes the adapter off the model."""
        self._model.close()

    @property
    def shape(self) -> LoraShape:
        return self._settings.shape

    @property
    def model(self) -> AdaptedModel:
        return self._model

    def context(self, cohort: Cohort) -> bytes:
        """A digest of all that the next step is computed from; the same step draws this noise."""
        digest = hashlib.sha256(artifact_bytes(self.state()))
        digest.update(msgspec.json.encode(self._settings, order="deterministic"))
        digest.update(msgspec.json.encode(cohort, order="deterministic"))
        return digest.digest()

    def contribution(self, examples: list[TrainingExample]) -> Contribution:
        """What one user's examples add to the next step: for work that need not wait for the rest
        of the cohort. It holds until the next step only. Raises EventInvalid."""
        return contribution(
            self._model, self.adapter, self.trained, self._encoded(examples), self._norm_max
        )

    def adopt(self, live: Tensors) -> bool:
        """Adds what others have released since; False where that is nothing.

        `live` is a live version of the same names and shapes. Steps of this learner that were never
        released are kept: only the difference from the live version known before is added.
        """
        moved = False
        for name, tensor in self.adapter.items():
            difference = live[name].to(tensor.device) - self._anchor[name]
            moved = moved or bool(difference.any())
            tensor.add_(difference)
            self._anchor[name].add_(difference)
        return moved

    def released(self) -> None:
        """The adapter is the live version from now on."""
        for name, tensor in self.adapter.items():
            self._anchor[name].copy_(tensor)

    def step(
        self, cohort: Cohort, contributions: Sequence[Contribution] | None = None
    ) -> CohortGradient:
        """Learns from a cohort; `contributions`, one for each of its users in order, save work.

        1. Each user's gradient is computed and, in private, cut to max_grad_norm.
        2. The mechanism adds noise to their sum.
        3. The optimizer steps along the sum divided by the cohort size.
        4. Where the norm is adaptive, it moves by a noisy count.

        Raises BudgetSpent after the plan's last round; nothing has changed then.
        """
        context = self.context(cohort)
        if contributions is not None:
            found = summed(contributions)
        else:
            users = [self._encoded(examples) for examples in cohort.examples.values()]
            found = cohort_gradient(
                self._model,
                self.adapter,
                self.trained,
                users,
                self._norm_max,
                self._settings.rows_max,
            )
        # The count draws its noise under the number of this round, so it comes first.
        norm_after = self._norm_after(found.norms, context)
        noisy = self.mechanism.privatise(found.total, self.max_grad_norm, context)
        gradient = {name: (t / self._settings.cohort_size).float() for name, t in noisy.items()}
        self._optimizer.step(self.trained, gradient)
        self.max_grad_norm = norm_after
        return found

    @property
    def _norm_max(self) -> float | None:
        return self.max_grad_norm if self.mechanism.plan.private else None

    def _norm_after(self, norms: Tensor, context: bytes) -> float:
        adaptive = self._settings.adaptive
        if adaptive is None:
            return self.max_grad_norm
        unclipped = int((norms <= self.max_grad_norm).sum())
        count = self.mechanism.privatise_count(unclipped - 0.5 * len(norms), context)
        return adaptive.next_norm(self.max_grad_norm, count, self._settings.cohort_size)

    def _encoded(self, examples: list[TrainingExample]) -> list[EncodedExample]:
        return [self.encode(example) for example in examples]

    def encode(self, example: TrainingExample) -> EncodedExample:
        """Tokens of a correction, or of the answer that was rated. Raises EventInvalid."""
        return encode_example(self._tokenizer, self.end_token, example, self._settings.tokens_max)

    def state(self) -> Tensors:
        """What `restore` needs, under one name each."""
        return (
            {"max_grad_norm": torch.tensor([self.max_grad_norm], dtype=torch.float64)}
            | {f"adapter.{name}": t.detach().cpu().clone() for name, t in self.adapter.items()}
            | {f"anchor.{name}": t.detach().cpu().clone() for name, t in self._anchor.items()}
            | {f"optimizer.{name}": t.cpu() for name, t in self._optimizer.state().items()}
            | {f"mechanism.{name}": t for name, t in self.mechanism.state().items()}
        )

    def restore(self, state: Tensors) -> None:
        """Goes on as if there had been no restart. Raises LedgerBroken for another's state."""
        self.mechanism.restore(_part(state, "mechanism."))
        self._optimizer.restore(_part(state, "optimizer."))
        self.max_grad_norm = float(state["max_grad_norm"].item())
        for name, tensor in self.adapter.items():
            tensor.copy_(state[f"adapter.{name}"])
            # States of older versions have none; they knew of no release but their own.
            self._anchor[name].copy_(state.get(f"anchor.{name}", tensor))


def end_token_of(loaded: Loaded) -> int:
    """The token that ends an answer of the model."""
    found = chat_end_token(loaded.tokenizer)
    end: int = loaded.tokenizer.eos_token_id if found is None else found
    return end


def encode_example(
    tokenizer: PreTrainedTokenizerBase, end_token: int, example: TrainingExample, tokens_max: int
) -> EncodedExample:
    """Tokens of a correction, or of the answer that was rated. Raises EventInvalid."""
    corrected = example.correction is not None
    text = example.correction if example.correction is not None else example.completion
    answer = encode_answer(tokenizer, end_token, example.messages, text, tokens_max)
    return EncodedExample(answer, None if corrected else example.rating, example.weight)


def _part(state: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
