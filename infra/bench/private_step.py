"""What privacy costs a step: ours, the same without privacy, and Opacus' hooks, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from opacus import GradSampleModule  # type: ignore[import-untyped]
from torch import Tensor, nn

from infra.evaluation.opacus_lora import lora_modules
from models.engine.load import Loaded, load
from models.learning.batches import Batch, pad
from models.learning.clipping import clipped_sum, user_norms
from models.learning.examples import Cohort, TrainingExample
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.losses import answer_log_likelihoods, correction_losses
from models.learning.optimizers import OptimizerSettings
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.plan import make_plan

_USERS = 16
_REPEATS = 7
_SETTINGS = LearnerSettings(
    LoraShape(), OptimizerSettings("sgd", 0.01), cohort_size=_USERS, rows_max=_USERS
)


def bench_private_step(cache_dir: Path) -> dict[str, Any]:
    """Median seconds of a step on 16 users of about 90 tokens, and ratios to the plain one.

    The three take turns, so that a busy moment of the machine does not fall on one alone.
    """
    loaded = load("smollm2", cache_dir, "auto", "auto")
    cohort = Cohort(0, {example.user: [example] for example in _examples()})
    learner = _learner(loaded)
    encoded = [learner.encode(found[0]).answer for found in cohort.examples.values()]
    batch = pad(encoded, loaded.model.device)
    steps: dict[str, Callable[[], object]] = {
        "plain": _plain(learner, batch),
        "private": lambda: learner.step(cohort),
    }
    seconds = _timed(steps)
    with lora_modules(loaded.model, learner.adapter, _SETTINGS.shape) as parameters:
        hooked_plain, hooked = _with_opacus(loaded, list(parameters.values()), batch)
        seconds |= _timed({"opacus_plain": hooked_plain, "opacus_hooks": hooked})
    return {
        "users": _USERS,
        "tokens": batch.tokens.shape[1],
        "seconds": seconds,
        "private_to_plain": round(seconds["private"] / seconds["plain"], 3),
        "opacus_to_plain": round(seconds["opacus_hooks"] / seconds["opacus_plain"], 3),
    }


def _examples() -> list[TrainingExample]:
    text = "The mill stands on the left bank, a short walk from the old bridge and the market."
    asked = (
        "Describe: name[The Mill], eatType[pub], food[English], priceRange[moderate], area[bank]"
    )
    return [
        TrainingExample(
            example_id=str(number),
            user=str(number),
            messages=({"role": "user", "content": f"{asked}, near[house {number}]"},),
            correction=text + " It is open." * (number % 3),
        )
        for number in range(_USERS)
    ]


def _learner(loaded: Loaded) -> Learner:
    plan = make_plan("correlated", epsilon=8.0, delta=1e-6, rounds_max=1000)
    adapter = new_adapter(loaded.model, _SETTINGS.shape)
    shapes = shapes_of(adapter)
    return Learner(loaded, _SETTINGS, open_mechanism(plan, shapes), adapter)


def _plain(learner: Learner, batch: Batch) -> Callable[[], object]:
    """One shared adapter, torch's own optimizer: nothing of ours but the adapter."""
    weights = {name: t.clone().requires_grad_() for name, t in learner.adapter.items()}
    optimizer = torch.optim.SGD(list(weights.values()), lr=0.01, momentum=0.9)

    def step() -> None:
        with learner.model.using(weights):
            likelihoods, counts = answer_log_likelihoods(learner.model.model, batch)
        optimizer.zero_grad()
        correction_losses(likelihoods, counts).mean().backward()
        optimizer.step()

    return step


def _with_opacus(
    loaded: Loaded, weights: list[Any], batch: Batch
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A plain step and a private one on `weights`, parameters on which Opacus puts grad_sample."""
    model = loaded.model
    optimizer = torch.optim.SGD(weights, lr=0.01, momentum=0.9)

    def losses(module: nn.Module) -> Tensor:
        return correction_losses(*answer_log_likelihoods(module, batch))

    def plain() -> None:
        optimizer.zero_grad()
        losses(model).mean().backward()
        optimizer.step()

    hooks = GradSampleModule(model, loss_reduction="sum")
    hooks.disable_hooks()

    def hooked() -> None:
        hooks.enable_hooks()
        optimizer.zero_grad()
        losses(hooks).sum().backward()
        gradients = {str(i): p.grad_sample for i, p in enumerate(weights)}
        total = clipped_sum(gradients, user_norms(gradients), 1.0)
        for i, parameter in enumerate(weights):
            noise = torch.randn_like(parameter)
            parameter.grad = (total[str(i)].float() + noise) / _USERS
            parameter.grad_sample = None
        optimizer.step()
        hooks.disable_hooks()

    return plain, hooked


def _timed(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(_REPEATS):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - begun)
    return {name: round(statistics.median(seconds), 3) for name, seconds in found.items()}
