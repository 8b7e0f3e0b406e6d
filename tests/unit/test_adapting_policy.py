"""The chances of variants, the draw, and off-policy estimates, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.adapting.bandit import Bandit
from models.adapting.off_policy import (
    Log,
    Moments,
    doubly_robust_estimate,
    importance_estimate,
    self_normalised_estimate,
)
from models.adapting.policy import Rule, draw, propensities
from models.adapting.variants import read_variants
from schemas.errors import DataInvalid, SettingsInvalid

SIZE = 3


def learned(arms: int, seed: int, events: int) -> Bandit:
    """A bandit that has learned rewards drawn from a seed."""
    random = np.random.default_rng(seed)
    bandit = Bandit([f"arm {number}" for number in range(arms)], SIZE)
    for _ in range(events):
        features = np.array([1.0, *random.normal(size=SIZE - 1)])
        arm = int(random.integers(arms))
        bandit.update(arm, features, float(random.normal(arm / 10.0)), 1.0 / arms)
    return bandit


@given(
    arms=st.integers(2, 10),
    seed=st.integers(0, 1_000),
    events=st.integers(0, 60),
    share=st.floats(0.01, 1.0),
    learns=st.booleans(),
)
def test_chances_sum_to_one_and_keep_the_floor(
    arms: int, seed: int, events: int, share: float, learns: bool
) -> None:
    floor = share / arms
    features = np.array([1.0, *np.random.default_rng(seed).normal(size=SIZE - 1)])
    bandit = learned(arms, seed, events)
    found = propensities(bandit.estimates(), features, Rule(floor=floor, learns=learns))
    assert found.sum() == pytest.approx(1.0)
    assert found.min() >= floor * (1.0 - 1e-9)
    if not learns:
        assert found[1:] == pytest.approx(floor)


def test_what_is_not_proven_to_be_better_than_the_baseline_serves_no_more_than_the_floor() -> None:
    bandit = Bandit(["usual", "bad", "good", "untried"], 1)
    one = np.ones(1)
    for _ in range(40):
        for arm, reward in enumerate((0.2, -0.5, 0.9)):
            bandit.update(arm, one, reward, 0.25)
    found = propensities(bandit.estimates(), one, Rule(floor=0.05))
    assert found[1] == found[3] == 0.05
    assert found[2] > 0.8


def test_a_bandit_that_knows_nothing_serves_the_baseline() -> None:
    found = propensities(Bandit(["usual", "other"], 1).estimates(), np.ones(1), Rule(floor=0.1))
    assert found == pytest.approx([0.9, 0.1])


def test_the_draw_is_the_same_for_a_prompt_and_as_likely_as_it_says() -> None:
    chances = np.array([0.7, 0.2, 0.1])
    drawn = [draw(chances, f"prompt-{number}") for number in range(20_000)]
    assert drawn == [draw(chances, f"prompt-{number}") for number in range(20_000)]
    assert np.bincount(drawn) / len(drawn) == pytest.approx(chances, abs=0.01)


def test_the_posterior_is_that_of_ridge_regression() -> None:
    random = np.random.default_rng(1)
    features, rewards = random.normal(size=(50, SIZE)), random.normal(size=50)
    weights = random.uniform(0.1, 1.0, 50)
    bandit = Bandit(["only", "other"], SIZE)
    for row, reward, weight in zip(features, rewards, weights, strict=True):
        bandit.update(0, row, float(reward), 1.0, float(weight))
    precision = np.eye(SIZE) + features.T @ (weights[:, None] * features)
    expected = np.linalg.solve(precision, features.T @ (weights * rewards))
    assert bandit.estimates().means[0] == pytest.approx(expected)


def test_what_is_forgotten_counts_less_and_the_prior_stays() -> None:
    random = np.random.default_rng(1)
    features, rewards = random.normal(size=(50, SIZE)), random.normal(size=50)
    bandit = Bandit(["only", "other"], SIZE, memory=10.0)
    for row, reward in zip(features, rewards, strict=True):
        bandit.update(0, row, float(reward), 1.0)
    # One of ten rewards ago counts 1/e.
    weights = np.exp(-np.arange(49, -1, -1) / 10.0)
    precision = np.eye(SIZE) + features.T @ (weights[:, None] * features)
    expected = np.linalg.solve(precision, features.T @ (weights * rewards))
    assert bandit.estimates().means[0] == pytest.approx(expected)
    # What nobody tries is as uncertain as in the beginning, and no more.
    fresh = Bandit(["only", "other"], SIZE).estimates()
    assert bandit.estimates().covariances[1] == pytest.approx(fresh.covariances[1])


def one_log(seed: int) -> tuple[list[float], float]:
    """Values of the three estimators on a synthetic log, and what is true."""
    random = np.random.default_rng(seed)
    count, arms = 400, 3
    kind = random.integers(0, 2, count)
    logging = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])[kind]
    target = np.array([[0.1, 0.1, 0.8], [0.5, 0.4, 0.1]])[kind]
    means = np.array([[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]])[kind]
    drawn = np.array([random.choice(arms, p=row) for row in logging])
    rows = np.arange(count)
    log = Log(drawn, logging[rows, drawn], random.normal(means[rows, drawn], 0.2))
    wrong = means + 0.3  # a model that is wrong everywhere
    found = [
        importance_estimate(log, target).value,
        self_normalised_estimate(log, target).value,
        doubly_robust_estimate(log, target, wrong).value,
    ]
    return found, float((target * means).sum(1).mean())


def test_the_estimators_are_unbiased_even_where_the_model_is_wrong() -> None:
    errors = np.array([np.array(values) - truth for values, truth in map(one_log, range(150))])
    bias, error = errors.mean(0), errors.std(0) / np.sqrt(len(errors))
    assert (np.abs(bias) < 3.5 * error + [0.0, 0.01, 0.0]).all()
    # The plain model would have been 0.3 off.
    assert abs(bias[2]) < 0.03


def test_a_log_without_chances_is_refused() -> None:
    with pytest.raises(DataInvalid, match="propensity"):
        Log(np.array([0, 1]), np.array([0.5, 0.0]), np.array([1.0, 0.0]))


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 1)), min_size=2, max_size=30))
def test_online_moments_are_those_of_all_numbers_together(
    numbers: list[tuple[float, float]],
) -> None:
    moments = Moments()
    for value, weight in numbers:
        moments.add(value, weight)
    values, weights = np.array(numbers).T
    mean = np.average(values, weights=weights)
    assert moments.mean == pytest.approx(mean, abs=1e-9)
    assert moments.deviations == pytest.approx((weights * (values - mean) ** 2).sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("usual", "no list"),
        ('[{"name": "a"}]', "no choice"),
        ('[{"name": "a"}, {"name": "a"}]', "twice"),
        ('[{"name": "a"}, {"name": "b", "topk": 1}]', "topk"),
        ('[{"name": "a"}, {"name": "b", "top_k": 51}]', "top_k"),
        ('[{"name": "a"}, {"name": "b"}, {"name": "c"}]', "floor"),
    ],
)
def test_variants_that_cannot_be_tried_are_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        read_variants(text, 0.4)
