"""From settings to a learner: its optimizer, and what is promised of all of it."""

from __future__ import annotations

from agents.settings import LearnSettings
from models.engine.load import Loaded
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, Trained, trained_of
from models.learning.optimizers import OptimizerSettings, suiting, trained_in
from models.privacy.ledger import Opening
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import Tensors, shapes_of
from models.privacy.plan import MechanismName
from models.privacy.randomness import NoiseKey


def optimizer_of(settings: LearnSettings) -> OptimizerSettings:
    """The one that is set, or what suits the mechanism."""
    found = suiting(settings.mechanism, settings.epsilon, settings.cohort_size)
    if settings.optimizer not in (None, found.kind):
        other: MechanismName = "none" if settings.optimizer == "adam" else "correlated"
        found = suiting(other, settings.epsilon, settings.cohort_size)
    rate = settings.learning_rate or found.learning_rate
    return OptimizerSettings(found.kind, rate, found.beta, found.beta_square)


def _trained(settings: LearnSettings) -> Trained:
    """What is set, or what suits the mechanism."""
    return settings.trained or trained_in(settings.mechanism, settings.epsilon)


def open_learner(
    loaded: Loaded,
    settings: LearnSettings,
    shape: LoraShape,
    opening: Opening,
    key: NoiseKey,
    adapter: Tensors,
) -> Learner:
    """A learner of the opening's plan, which stands at its beginning with `adapter`."""
    learner = LearnerSettings(
        shape,
        optimizer_of(settings),
        settings.cohort_size,
        settings.max_grad_norm,
        tokens_max=settings.tokens_max,
    )
    trained = _trained(settings)
    shapes = shapes_of(trained_of(adapter, trained))
    return Learner(loaded, learner, open_mechanism(opening.plan, shapes, key), adapter, trained)


def promised(settings: LearnSettings, model: str) -> dict[str, str | int | float | bool]:
    """What may not change while an adapter lives, as the ledger's opening keeps it."""
    optimizer = optimizer_of(settings)
    fields = {
        "mechanism",
        "epsilon",
        "delta",
        "rounds_max",
        "cohort_size",
        "examples_per_user_max",
        "participations_max",
        "separation_min",
        "max_grad_norm",
        "rank",
        "targets",
        "tokens_max",
        "dtype",
    }
    return settings.model_dump(include=fields) | {
        "model": model,
        "trained": _trained(settings),
        "optimizer": optimizer.kind,
        "learning_rate": optimizer.learning_rate,
    }
