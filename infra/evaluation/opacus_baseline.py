"""Opacus' DP-SGD on the same cohorts, with the same noise multiplier: accounted as ours is.

Opacus' own accountants assume that batches are sampled at random, which cohorts of a stream are
not; what they would say is not used.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from opacus import GradSampleModule  # type: ignore[import-untyped]
from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped]
from torch.optim.lr_scheduler import LambdaLR

from infra.evaluation.opacus_lora import lora_modules
from models.learning.batches import EncodedAnswer, pad
from models.learning.learner import Learner
from models.learning.losses import answer_log_likelihoods, correction_losses
from models.learning.optimizers import OptimizerSettings
from models.privacy.noise import Tensors

_ROWS_MAX = 16


def opacus_steps(
    learner: Learner,
    cohorts: Sequence[Sequence[EncodedAnswer]],
    optimizer: OptimizerSettings,
    noise_multiplier: float,
    max_grad_norm: float,
) -> Generator[tuple[Tensors, list[float]]]:
    """One step for each cohort of users with one answer each: the adapter after it, and the losses
    before it.

    Trains what the learner trains. Begins at its adapter, which stays as it is. The learning rate
    falls as ours does. Between two steps the model computes with the adapter built in: evaluate it
    with an empty one.
    """
    model = learner.model.model
    with lora_modules(model, learner.adapter, learner.shape) as parameters:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in learner.trained)
        inner = _inner([parameters[name] for name in learner.trained], optimizer)
        hooked = GradSampleModule(model, loss_reduction="sum")
        private = DPOptimizer(
            inner,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=len(cohorts[0]),
        )
        last = max(len(cohorts) - 1, 1)
        falling = LambdaLR(inner, lambda done: 1 - (1 - optimizer.final_share) * done / last)
        try:
            for cohort in cohorts:
                losses = _step(hooked, private, cohort)
                falling.step()
                yield {name: p.detach().clone() for name, p in parameters.items()}, losses
        finally:
            hooked.remove_hooks()


def _inner(parameters: list[torch.Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    if settings.kind == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.beta)
    betas = (settings.beta, settings.beta_square)
    return torch.optim.Adam(parameters, lr=settings.learning_rate, betas=betas)


def _step(
    hooked: GradSampleModule, private: DPOptimizer, cohort: Sequence[EncodedAnswer]
) -> list[float]:
    """A few rows at a time; noise and step come with the last of them."""
    found: list[float] = []
    for begin in range(0, len(cohort), _ROWS_MAX):
        batch = pad(cohort[begin : begin + _ROWS_MAX], next(hooked.parameters()).device)
        losses = correction_losses(*answer_log_likelihoods(hooked, batch))
        losses.sum().backward()
        private.signal_skip_step(do_skip=begin + _ROWS_MAX < len(cohort))
        private.step()
        private.zero_grad()
        found += losses.tolist()
    return found
