"""An attack on the learner itself, through the path that every user's text takes.

Each round is a cohort of canaries, users with random text; a coin says of each whether it takes
part or is replaced by nothing. The attacker sees every version of the adapter, knows all texts
and settings, and guesses the coins: the strongest that the guarantee allows for.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from models.learning.clipping import user_norms
from models.learning.cohort_gradient import user_gradients
from models.learning.examples import Cohort, TrainingExample
from models.learning.learner import Learner
from models.learning.optimizers import OptimizerSettings
from models.privacy.audit import Guesses, Matrix, guess, presence_scores
from models.privacy.noise import Tensors

# Plain steps without momentum: what was added to the weights is then the noisy sum itself.
AUDITED_OPTIMIZER = OptimizerSettings("sgd", 0.01, beta=0.0)


def attack(
    learner: Learner,
    cohort_size: int,
    guesses: int,
    noise: float,
    report: Callable[[int, int], None],
    seed: int | None = None,
) -> Guesses:
    """Runs all rounds of the learner's plan on canaries, and guesses who was there.

    The learner has AUDITED_OPTIMIZER and `cohort_size`, and a fixed norm; its rounds hold
    `cohort_size` canaries each. `noise` is the noise multiplier that is claimed. Coins and texts
    are drawn from the operating system without a `seed`. `report` is told rounds done and all.
    """
    generator = random.Random(seed) if seed is not None else random.SystemRandom()
    plan = learner.mechanism.plan
    sums: list[Matrix] = []
    canaries: list[Matrix] = []
    coins: list[bool] = []
    for number in range(plan.rounds_max):
        users = {f"canary-{number}-{i}": [_canary(generator)] for i in range(cohort_size)}
        present = {user: generator.random() < 0.5 for user in users}
        canaries.append(_contributions(learner, list(users.values())))
        coins += present.values()
        before = _flat(learner.trained)
        learner.step(Cohort(number, {u: found for u, found in users.items() if present[u]}))
        step = before - _flat(learner.trained)
        sums.append(step / AUDITED_OPTIMIZER.learning_rate * cohort_size)
        report(number + 1, plan.rounds_max)
    rounds: NDArray[np.int64] = np.repeat(np.arange(plan.rounds_max), cohort_size)
    scores = presence_scores(
        np.stack(sums),
        plan.strategy.coefficients(plan.rounds_max),
        np.concatenate(canaries),
        rounds,
        noise * learner.max_grad_norm,
    )
    return guess(scores, np.array(coins), guesses)


def _canary(generator: random.Random) -> TrainingExample:
    """A correction of random letters: nothing that others write looks like it."""
    asked, answered = ("".join(generator.choices(string.ascii_letters, k=24)) for _ in range(2))
    return TrainingExample(
        example_id=asked,
        user=asked,
        messages=({"role": "user", "content": asked},),
        correction=answered,
    )


def _contributions(learner: Learner, users: list[list[TrainingExample]]) -> Matrix:
    """What each user adds to the sum at the released weights; (users, parameters)."""
    encoded = [[learner.encode(example) for example in examples] for examples in users]
    gradients, _ = user_gradients(learner.model, learner.adapter, learner.trained, encoded)
    shares = (learner.max_grad_norm / user_norms(gradients)).clamp(max=1.0)
    flat = torch.cat([g.flatten(1).double() for g in gradients.values()], dim=1)
    found: Matrix = (flat * shares[:, None]).cpu().numpy()
    return found


def _flat(tensors: Tensors) -> Matrix:
    flat: Matrix = np.concatenate(
        [tensor.detach().cpu().double().numpy().ravel() for tensor in tensors.values()]
    )
    return flat
