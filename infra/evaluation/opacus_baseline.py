"""Opacus' DP-SGD on the same cohorts, with the same noise multiplier: accounted as ours is.

Opacus' own accountants assume that batches are sampled at random, which cohorts of a stream are
not; what they would say is not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from opacus import GradSampleModule  # type: ignore[import-untyped]
from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped]

from infra.evaluation.opacus_lora import lora_modules
from models.learning.batches import EncodedAnswer, pad
from models.learning.learner import Learner
from models.learning.losses import answer_log_likelihoods, correction_losses
from models.learning.optimizers import OptimizerSettings
from models.privacy.noise import Tensors

_ROWS_MAX = 16


def opacus_adapter(
    learner: Learner,
    cohorts: Sequence[Sequence[EncodedAnswer]],
    optimizer: OptimizerSettings,
    noise_multiplier: float,
    max_grad_norm: float,
) -> Tensors:
    """The adapter after one step for each cohort of users with one answer each.

    Begins at the learner's adapter, which stays as it is.
    """
    model = learner.model.model
    with lora_modules(model, learner.adapter, learner.shape) as parameters:
        inner: torch.optim.Optimizer = (
            torch.optim.SGD(
                parameters.values(), lr=optimizer.learning_rate, momentum=optimizer.beta
            )
            if optimizer.kind == "sgd"
            else torch.optim.Adam(
                parameters.values(),
                lr=optimizer.learning_rate,
                betas=(optimizer.beta, optimizer.beta_square),
            )
        )
        hooked = GradSampleModule(model, loss_reduction="sum")
        private = DPOptimizer(
            inner,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=len(cohorts[0]),
        )
        for cohort in cohorts:
            _step(hooked, private, cohort)
        found = {name: p.detach().clone() for name, p in parameters.items()}
        hooked.remove_hooks()
    return found


def _step(hooked: GradSampleModule, private: DPOptimizer, cohort: Sequence[EncodedAnswer]) -> None:
    """A few rows at a time; noise and step come with the last of them."""
    for begin in range(0, len(cohort), _ROWS_MAX):
        batch = pad(cohort[begin : begin + _ROWS_MAX], next(hooked.parameters()).device)
        correction_losses(*answer_log_likelihoods(hooked, batch)).sum().backward()
        private.signal_skip_step(do_skip=begin + _ROWS_MAX < len(cohort))
        private.step()
        private.zero_grad()
