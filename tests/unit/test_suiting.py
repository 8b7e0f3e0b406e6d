"""Which steps, and on which matrices, suit a mechanism at its budget."""

import pytest

from agents.learning.parts import promised
from agents.settings import LearnSettings
from models.learning.optimizers import WITHOUT_NOISE, suiting, trained_in
from models.privacy.plan import MechanismName


def test_without_noise_both_matrices_are_trained_by_adam() -> None:
    assert suiting("none", 8.0, 64) == WITHOUT_NOISE
    assert trained_in("none", 1.0) == "both"


@pytest.mark.parametrize("mechanism", ["gaussian", "correlated"])
def test_the_less_the_budget_the_smaller_the_steps(mechanism: MechanismName) -> None:
    rates = [suiting(mechanism, epsilon, 64).learning_rate for epsilon in (0.5, 1.0, 2.0)]
    assert rates[1] == 2 * rates[0] and rates[2] == 2 * rates[1]
    assert trained_in(mechanism, 2.0) == "b" and trained_in(mechanism, 8.0) == "both"


def test_smaller_cohorts_take_smaller_steps() -> None:
    large, small = (suiting("correlated", 2.0, size).learning_rate for size in (64, 16))
    assert large == 4 * small == suiting("correlated", 2.0, 640).learning_rate


def test_what_is_trained_is_promised_and_may_be_set() -> None:
    assert promised(LearnSettings(epsilon=2.0), "m")["trained"] == "b"
    assert promised(LearnSettings(epsilon=8.0), "m")["trained"] == "both"
    assert promised(LearnSettings(epsilon=2.0, trained="both"), "m")["trained"] == "both"
