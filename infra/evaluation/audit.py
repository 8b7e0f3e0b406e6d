"""Attacks a learner that promises some epsilon, and says what the attack proves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from models.engine.load import Loaded
from models.learning.canaries import AUDITED_OPTIMIZER, attack
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter, trained_of
from models.learning.optimizers import trained_in
from models.privacy.audit import epsilon_lower_bound
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.plan import make_plan
from schemas.errors import SettingsInvalid

_COHORT_SIZE = 10
# So small that every canary's gradient is cut to it: none is weaker than the promise allows.
_MAX_GRAD_NORM = 0.05


@dataclass(frozen=True, slots=True)
class Audit:
    """What is attacked. The learner gets the noise that `epsilon` needs, divided by `noise_cut`."""

    mode: Literal["gaussian", "correlated"] = "correlated"
    epsilon: float = 2.0
    delta: float = 1e-5
    canaries: int = 1000
    noise_cut: float = 1.0


def run_audit(
    loaded: Loaded, audit: Audit, report: Callable[[int, int], None], seed: int | None = None
) -> dict[str, Any]:
    """The lower bound of epsilon at 95 % confidence, beside the claim.

    A quarter of the coins is guessed. Noise is drawn anew each time, coins too without a `seed`.
    Raises SettingsInvalid for too few canaries.
    """
    if audit.canaries < 4 * _COHORT_SIZE or audit.noise_cut <= 0.0:
        raise SettingsInvalid(
            f"An audit needs {4 * _COHORT_SIZE} canaries and a positive cut of the noise.",
            "Use 1000 canaries and a cut of 1.",
        )
    claimed = make_plan(
        audit.mode,
        epsilon=audit.epsilon,
        delta=audit.delta,
        rounds_max=audit.canaries // _COHORT_SIZE,
    )
    noise = claimed.noise_multiplier
    plan = msgspec.structs.replace(claimed, noise_multiplier=noise / audit.noise_cut)
    shape = LoraShape()
    adapter = new_adapter(loaded.model, shape)
    trained = trained_in(audit.mode, audit.epsilon)
    shapes = shapes_of(trained_of(adapter, trained))
    settings = LearnerSettings(shape, AUDITED_OPTIMIZER, _COHORT_SIZE, _MAX_GRAD_NORM)
    learner = Learner(loaded, settings, open_mechanism(plan, shapes), adapter, trained)
    try:
        found = attack(learner, _COHORT_SIZE, audit.canaries // 4, noise, report, seed)
    finally:
        learner.close()
    bound = epsilon_lower_bound(found, audit.delta)
    return {
        "claimed_epsilon": audit.epsilon,
        "epsilon_at_least": round(bound, 4),
        "holds": bound <= audit.epsilon,
        **asdict(found),
    }
