"""The noise has the covariance it claims, goes on exactly after a restart, and is never reused."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from best_bands import optimise_banded
from safetensors.torch import load, save
from scipy import stats

from models.privacy.adaptive import AdaptiveNorm
from models.privacy.banded import INDEPENDENT, Banded
from models.privacy.buffered import BufferedToeplitz, optimise_buffers
from models.privacy.mechanism import Mechanism, open_mechanism
from models.privacy.noise import NoiseStream
from models.privacy.plan import Plan, make_plan
from models.privacy.randomness import NoiseKey, label_of
from schemas.errors import BudgetSpent, LedgerBroken, SettingsInvalid

KEY = NoiseKey(bytes(range(32)))
ROUNDS = 24
STRATEGIES = [INDEPENDENT, optimise_banded(ROUNDS, 5), optimise_buffers(ROUNDS, 3)]
IDS = ["independent", "banded", "buffered"]
SHAPES = {"a": (20_000,), "b": (3, 2)}

Strategy = Banded | BufferedToeplitz


def matrix(strategy: Strategy) -> np.ndarray:
    c = strategy.coefficients(ROUNDS)
    return np.array([[c[t - s] if t >= s else 0.0 for s in range(ROUNDS)] for t in range(ROUNDS)])


def drawn(strategy: Strategy, restart_after: int | None = None) -> np.ndarray:
    """(ROUNDS, 20000); with a restart through bytes after so many rounds."""
    stream = NoiseStream(strategy, SHAPES, KEY, hardened=True)
    rows = []
    for step in range(ROUNDS):
        if step == restart_after:
            stored = save(stream.state())
            stream = NoiseStream(strategy, SHAPES, KEY, hardened=True)
            stream.restore(load(stored))
        rows.append(stream.next(b"input")["a"].numpy().copy())
    return np.stack(rows)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=IDS)
@pytest.mark.parametrize("restart_after", [None, 7])
def test_the_noise_has_the_covariance_it_claims(
    strategy: Strategy, restart_after: int | None
) -> None:
    inverse = np.linalg.inv(matrix(strategy))
    claimed = inverse @ inverse.T
    noise = drawn(strategy, restart_after)
    count = noise.shape[1]
    found = noise @ noise.T / count
    spread = np.sqrt((np.outer(np.diag(claimed), np.diag(claimed)) + claimed**2) / count)
    # 300 different entries: 5 standard errors are passed by chance once in 6,000 runs.
    assert np.abs((found - claimed) / spread).max() < 5.0
    white = matrix(strategy) @ noise
    assert stats.kstest(white.ravel()[::7], "norm").pvalue > 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES, ids=IDS)
def test_a_restart_changes_no_bit(strategy: Strategy) -> None:
    undisturbed = drawn(strategy)
    for restart_after in (1, 5, 23):
        assert drawn(strategy, restart_after).tobytes() == undisturbed.tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=IDS)
def test_prefix_sums_are_as_noisy_as_the_loss_says(strategy: Strategy) -> None:
    last = drawn(strategy).sum(axis=0)
    error = np.linalg.norm(np.linalg.inv(matrix(strategy)).sum(axis=0))
    assert last.std() == pytest.approx(error, rel=0.03)


def test_a_step_done_again_draws_the_same_for_the_same_input_and_never_for_another() -> None:
    def first(context: bytes, key: NoiseKey = KEY) -> torch.Tensor:
        return NoiseStream(INDEPENDENT, {"a": (2000,)}, key, hardened=True).next(context)["a"]

    assert torch.equal(first(b"one"), first(b"one"))
    for other in (first(b"two"), first(b"one", NoiseKey(bytes(32)))):
        together = torch.corrcoef(torch.stack((first(b"one"), other)))[0, 1]
        assert abs(together) < 5 / math.sqrt(2000)


def test_steps_and_tensors_share_no_noise() -> None:
    stream = NoiseStream(INDEPENDENT, {"a": (500,), "b": (500,)}, KEY, hardened=True)
    rows = [tensor for _ in range(4) for tensor in stream.next(b"").values()]
    together = torch.corrcoef(torch.stack(rows)) - torch.eye(len(rows))
    assert together.abs().max() < 5 / math.sqrt(500)
    labels = {label_of("noise", 1, "ab", b"c"), label_of("noise", 1, "a", b"bc")}
    assert len(labels) == 2


@pytest.mark.parametrize("hardened", [False, True])
def test_numbers_are_standard_normal(hardened: bool) -> None:
    found = KEY.normals(b"label", 100_001, hardened)
    assert found.shape == (100_001,)
    assert stats.kstest(found, "norm").pvalue > 1e-4
    assert np.array_equal(found, KEY.normals(b"label", 100_001, hardened))


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "noise.key"
    made = NoiseKey.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert NoiseKey.open(path).commitment == made.commitment
    assert made.commitment != NoiseKey.generate().commitment
    assert path.read_bytes().hex() not in repr(made) + str(made) + made.commitment
    with pytest.raises(TypeError):
        pickle.dumps(made)
    path.chmod(0o644)
    with pytest.raises(SettingsInvalid, match="Others may read"):
        NoiseKey.open(path)
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(SettingsInvalid, match="32 bytes"):
        NoiseKey.open(path)


def plan_of(mechanism: str, **more: float) -> Plan:
    return make_plan(mechanism, epsilon=2.0, delta=1e-6, rounds_max=ROUNDS, **more)  # type: ignore


@pytest.fixture(params=["none", "gaussian", "correlated"])
def mechanism(request: pytest.FixtureRequest) -> Mechanism:
    return open_mechanism(plan_of(request.param), {"a": (5000,)}, KEY)


def total() -> dict[str, torch.Tensor]:
    return {"a": torch.linspace(-1.0, 1.0, 5000)}


def test_every_mechanism_keeps_shape_and_format_and_stops(mechanism: Mechanism) -> None:
    for step in range(ROUNDS):
        assert mechanism.step == step
        released = mechanism.privatise(total(), 1.0, b"")["a"]
        assert released.shape == (5000,) and released.dtype == torch.float32
    with pytest.raises(BudgetSpent, match="24 rounds"):
        mechanism.privatise(total(), 1.0, b"")


def test_every_mechanism_goes_on_after_a_restart(mechanism: Mechanism) -> None:
    mechanism.privatise(total(), 1.0, b"0")
    successor = open_mechanism(mechanism.plan, {"a": (5000,)}, KEY)
    successor.restore(load(save(mechanism.state())))
    for context in (b"1", b"2"):
        ours = mechanism.privatise(total(), 0.5, context)["a"]
        assert torch.equal(ours, successor.privatise(total(), 0.5, context)["a"])


def test_the_noise_is_as_large_as_the_plan_says(mechanism: Mechanism) -> None:
    noise = mechanism.privatise(total(), 0.25, b"")["a"] - total()["a"]
    assert float(noise.std()) == pytest.approx(0.25 * mechanism.plan.noise_multiplier, rel=0.05)


def test_noise_of_another_adapter_is_refused() -> None:
    state = open_mechanism(plan_of("correlated"), {"a": (3,)}, KEY).state()
    for plan, shapes in ((plan_of("gaussian"), {"a": (3,)}), (plan_of("correlated"), {"a": (4,)})):
        with pytest.raises(LedgerBroken, match="stored noise"):
            open_mechanism(plan, shapes, KEY).restore(state)


def test_an_adaptive_norm_finds_the_quantile() -> None:
    norms = np.random.default_rng(0).lognormal(1.0, 0.5, 5000)
    mechanism = open_mechanism(plan_of("gaussian", count_share=0.05), {"a": (1,)}, KEY)
    norm, adaptive = 20.0, AdaptiveNorm(quantile=0.7, learning_rate=0.5)
    for step in range(100):
        count = float(np.where(norms <= norm, 0.5, -0.5).sum())
        noisy = mechanism.privatise_count(count, str(step).encode())
        norm = adaptive.next_norm(norm, noisy, len(norms))
    assert norm == pytest.approx(np.quantile(norms, 0.7), rel=0.05)
