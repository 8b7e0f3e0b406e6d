"""The audit: its statistics against the definition, and an attack on the real learner."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy.stats import binom  # type: ignore[import-untyped]
from tiny_model import build_tiny_model

from infra.evaluation.audit import Audit, run_audit
from models.engine.load import Loaded, load
from models.privacy.audit import (
    Guesses,
    epsilon_lower_bound,
    guess,
    p_value,
    presence_scores,
)
from schemas.errors import SettingsInvalid


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


def slow_p_value(found: Guesses, epsilon: float, delta: float) -> float:
    """Steinke et al. 2023, theorem 5.2, word for word."""
    law = binom(found.guesses, 1.0 / (1.0 + np.exp(-epsilon)))
    v = found.correct
    tail = sum(law.pmf(k) for k in range(v, found.guesses + 1))
    alpha = max(
        2.0 / i * sum(law.pmf(k) for k in range(max(v - i, 0), v))
        for i in range(1, found.canaries + 1)
    )
    return float(min(1.0, tail + alpha * found.canaries * delta))


@pytest.mark.parametrize("correct", [40, 55, 60])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3])
def test_the_p_value_is_that_of_the_paper(correct: int, delta: float) -> None:
    found = Guesses(100, 60, correct)
    assert p_value(found, 1.0, delta) == pytest.approx(slow_p_value(found, 1.0, delta), abs=1e-12)


def test_a_lower_bound_is_where_the_p_value_crosses() -> None:
    found = Guesses(1000, 250, 245)
    bound = epsilon_lower_bound(found, 1e-5)
    assert p_value(found, bound, 1e-5) <= 0.05 < p_value(found, bound + 1e-4, 1e-5)
    # All of 100 right, delta 0: q^100 = 0.05, by hand.
    alone = 0.05 ** (1 / 100)
    assert epsilon_lower_bound(Guesses(100, 100, 100), 0.0) == pytest.approx(
        np.log(alone / (1 - alone)), abs=1e-4
    )
    assert epsilon_lower_bound(Guesses(100, 50, 25), 1e-5) == 0.0
    assert epsilon_lower_bound(Guesses(100, 0, 0), 1e-5) == 0.0


def test_only_the_surest_guesses_count() -> None:
    scores = np.array([0.9, -0.8, 0.1, -0.1])
    present = np.array([True, False, False, True])
    assert guess(scores, present, 2) == Guesses(4, 2, 2)
    assert guess(scores, present, 4) == Guesses(4, 4, 2)


def test_without_noise_every_canary_is_seen() -> None:
    generator = np.random.default_rng(0)
    coefficients = np.array([1.0, 0.5, 0.375, 0.3])
    canaries = generator.normal(size=(12, 40))
    rounds = np.repeat(np.arange(4), 3)
    present = generator.random(12) < 0.5
    sums = np.zeros((4, 40))
    np.add.at(sums, rounds[present], canaries[present])
    scores = presence_scores(sums, coefficients, canaries, rounds, noise=1e-6)
    assert scores == pytest.approx(np.where(present, 0.5, -0.5), abs=1e-6)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mode", ["gaussian", "correlated"])
def test_a_sound_learner_passes_and_one_with_a_quarter_of_the_noise_is_caught(
    loaded: Loaded, mode: Literal["gaussian", "correlated"]
) -> None:
    told: list[tuple[int, int]] = []
    sound = run_audit(loaded, Audit(mode, canaries=600), lambda *done: told.append(done), seed=1)
    assert sound["holds"] and sound["epsilon_at_least"] < 1.6
    assert told[-1] == (60, 60)
    weak = run_audit(loaded, Audit(mode, canaries=600, noise_cut=4.0), lambda *_: None, seed=1)
    assert not weak["holds"] and weak["epsilon_at_least"] > 2.0


def test_an_audit_that_can_show_nothing_is_refused(loaded: Loaded) -> None:
    with pytest.raises(SettingsInvalid, match="canaries"):
        run_audit(loaded, Audit(canaries=8), lambda *_: None)
