"""Epsilon against dp-accounting, published values, and a brute-force sensitivity."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from best_bands import optimise_banded
from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given
from hypothesis import strategies as st

from models.privacy.banded import INDEPENDENT, Banded
from models.privacy.buffered import BufferedToeplitz, optimise_buffers
from models.privacy.gaussian import delta_of, epsilon_of, epsilon_of_rho, mu_of, rho_of
from models.privacy.plan import Plan, make_plan
from models.privacy.toeplitz import (
    loss,
    prefix_error,
    response_norm,
    sensitivity,
    solve,
    square_root,
)
from schemas.errors import SettingsInvalid

ROUNDS = 2048
SQUARE_ROOT = Banded(tuple(square_root(ROUNDS)))


@pytest.mark.parametrize("sigma", [0.66, 1.0, 2.387, 8.0])
@pytest.mark.parametrize("times", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("delta", [1e-5, 1e-6, 1e-10])
def test_epsilon_equals_dp_accounting(sigma: float, times: int, delta: float) -> None:
    plan = Plan(
        mechanism="gaussian",
        rounds_max=100,
        participations_max=times,
        noise_multiplier=sigma,
        delta=delta,
    )
    analytic = gaussian_mechanism.get_epsilon_gaussian(sigma / math.sqrt(times), delta)
    assert plan.epsilon() == pytest.approx(analytic, abs=1e-4)


@pytest.mark.parametrize(("sigma", "times"), [(1.0, 1), (1.0, 4), (2.0, 8), (2.387, 16)])
def test_epsilon_equals_numerical_composition(sigma: float, times: int) -> None:
    one = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, value_discretization_interval=1e-4, use_connect_dots=True
    )
    composed = one.self_compose(times).get_epsilon_for_delta(1e-6)
    assert epsilon_of(math.sqrt(times) / sigma, 1e-6) == pytest.approx(composed, abs=1e-4)


@pytest.mark.parametrize(("rho", "epsilon"), [(0.15068403, 3.42401), (0.01434257, 0.99355)])
def test_epsilon_equals_published_values(rho: float, epsilon: float) -> None:
    assert epsilon_of_rho(rho, 1e-10) == pytest.approx(epsilon, abs=5e-6)


@given(st.floats(1e-2, 60.0), st.sampled_from([1e-10, 1e-6, 1e-3]))
def test_mu_and_epsilon_are_inverse_and_on_the_private_side(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6)
    assert epsilon_of(mu, delta) <= epsilon + 1e-9
    assert delta_of(mu, epsilon) == pytest.approx(delta, rel=1e-4)
    assert rho_of(mu) == mu * mu / 2


def test_no_noise_at_all_is_no_privacy() -> None:
    assert epsilon_of(1e9, 1e-6) == math.inf
    assert epsilon_of(0.0, 1e-6) == 0.0
    with pytest.raises(SettingsInvalid, match="delta"):
        epsilon_of(1.0, 0.0)


def test_max_loss_of_published_strategies() -> None:
    assert loss(INDEPENDENT, ROUNDS) == pytest.approx(45.25, abs=5e-3)
    assert loss(SQUARE_ROOT, ROUNDS) == pytest.approx(3.493, abs=5e-4)


def test_no_toeplitz_strategy_beats_the_square_root() -> None:
    best = loss(optimise_banded(ROUNDS, ROUNDS), ROUNDS)
    assert best == pytest.approx(loss(SQUARE_ROOT, ROUNDS), rel=1e-6)


def test_four_buffers_come_within_one_per_cent_of_the_best() -> None:
    assert loss(optimise_buffers(ROUNDS, 4), ROUNDS) <= 1.01 * loss(SQUARE_ROOT, ROUNDS)
    repeated = loss(optimise_buffers(512, 5, 4, 64), 512, 4, 64)
    assert repeated <= 1.04 * loss(optimise_banded(512, 512, 4, 64), 512, 4, 64)


def test_more_bands_lose_less() -> None:
    losses = [loss(optimise_banded(256, bands), 256) for bands in (1, 2, 8, 32, 256)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(16.0)


decreasing = st.lists(st.floats(0.0, 1.0), max_size=6).map(
    lambda ratios: np.concatenate(([1.0], np.cumprod(ratios)))
)


@given(decreasing, st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_sensitivity_is_that_of_the_worst_of_all_users(
    coefficients: np.ndarray, rounds: int, times: int, apart: int
) -> None:
    padded = np.zeros(rounds)
    padded[: len(coefficients)] = coefficients[:rounds]
    worst = max(
        response_norm(padded, steps)
        for count in range(1, times + 1)
        for steps in itertools.combinations(range(rounds), count)
        if all(later - earlier >= apart for earlier, later in itertools.pairwise(steps))
    )
    assert sensitivity(coefficients, rounds, times, apart) == pytest.approx(worst, abs=1e-12)


def test_a_rising_strategy_is_refused() -> None:
    for bands in ((1.0, 0.5, 0.6), (1.0, -0.1), (0.9, 0.5), ()):
        with pytest.raises(SettingsInvalid):
            Banded(bands)
    with pytest.raises(SettingsInvalid):
        BufferedToeplitz((0.7, 0.7), (0.9, 0.5))


def test_the_noise_of_prefix_sums_is_that_of_the_matrices() -> None:
    strategy = optimise_buffers(64, 3)
    c = strategy.coefficients(64)
    matrix = sum(np.diag(np.full(64 - j, c[j]), -j) for j in range(64))
    prefix = np.tri(64) @ np.linalg.inv(matrix)
    assert prefix_error(c, 64) == pytest.approx(np.linalg.norm(prefix, axis=1).max())
    assert np.allclose(matrix @ solve(c, np.ones(64)), 1.0)


@pytest.mark.parametrize("mechanism", ["gaussian", "correlated"])
@pytest.mark.parametrize(("times", "apart"), [(1, 1), (3, 8)])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_plan_spends_what_it_was_given(
    mechanism: str, times: int, apart: int, share: float
) -> None:
    plan = make_plan(
        mechanism,  # type: ignore[arg-type]
        epsilon=2.0,
        delta=1e-6,
        rounds_max=40,
        participations_max=times,
        separation_min=apart,
        count_share=share,
    )
    assert plan.epsilon() == pytest.approx(2.0, abs=1e-6)
    assert plan.epsilon() <= 2.0
    spent = [plan.epsilon(rounds) for rounds in range(41)]
    assert spent == sorted(spent)
    assert spent[0] == 0.0
    worst = plan.user_epsilon([index * apart for index in range(times)], 40)
    assert worst == pytest.approx(plan.epsilon())
    assert plan.user_epsilon([39], 40) < worst or mechanism == "gaussian"
    assert plan.user_epsilon([], 40) == 0.0


def test_no_mechanism_promises_nothing() -> None:
    plan = make_plan("none", epsilon=8.0, delta=1e-6, rounds_max=10)
    assert plan.epsilon() == math.inf
    assert not plan.private


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0},
        {"delta": 0.0},
        {"rounds_max": 0},
        {"strategy": Banded((1.0, 0.5))},
        {"count_noise_multiplier": 0.0},
        {"mechanism": "none"},
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    sound = {"mechanism": "gaussian", "rounds_max": 10, "noise_multiplier": 1.0}
    with pytest.raises(SettingsInvalid, match="Privacy plan"):
        Plan(**{**sound, **change})  # type: ignore[arg-type]
