"""The evaluations of what adapts: what they say holds on data whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from infra.cli import cli
from infra.evaluation.bandit import evaluate, run_seed
from infra.evaluation.bandit_data import Logged, Rewards, bundled, read_log
from infra.evaluation.poisoning import Attack, run
from schemas.errors import DataInvalid


def small(events: int = 500, arms: int = 3) -> Rewards:
    """Three kinds of context, and one good arm for each."""
    random = np.random.default_rng(1)
    kinds = random.integers(0, arms, events)
    contexts = np.hstack([np.ones((events, 1)), np.eye(arms)[kinds]])
    rewards = np.clip(np.eye(arms)[kinds] + random.normal(0.0, 0.1, (events, arms)), 0.0, 1.0)
    return Rewards("small", [f"arm {n}" for n in range(arms)], contexts, rewards)


def log_lines(data: Rewards, whole: bool) -> str:
    """A log of uniform choices."""
    random = np.random.default_rng(2)
    lines = []
    for features, rewards in zip(data.contexts, data.rewards, strict=True):
        arm = int(random.integers(len(data.arms)))
        line = {
            "context": features[1:].tolist(),
            "arm": data.arms[arm],
            "propensity": 1.0 / len(data.arms),
            "reward": float(rewards[arm]),
        }
        if whole:
            line["rewards"] = dict(zip(data.arms, rewards.tolist(), strict=True))
        lines.append(json.dumps(line))
    return "\n".join(lines)


def test_the_bandit_beats_uniform_and_the_best_fixed_and_keeps_its_floor() -> None:
    found = evaluate(small(), seeds=6, floor=0.05)
    assert found["regret"]["against uniform"]["high"] < 0.0
    assert found["regret"]["against the best fixed"]["high"] < 0.0
    assert found["regret"]["against the oracle"]["low"] > 0.0
    assert found["least_propensity"] == pytest.approx(0.05)
    assert min(min(kinds.values()) for kinds in found["held"].values()) >= 0.8


def test_a_seed_gives_the_same_stream_again() -> None:
    assert run_seed(small(), 3, 0.05) == run_seed(small(), 3, 0.05)


def test_a_bandit_that_forgets_follows_a_world_that_changes() -> None:
    """Measured at length in docs/benchmarks/2026-11-22-bandit.md."""
    keeps, forgets = (
        evaluate(small(), seeds=4, floor=0.05, memory=memory, switch=True)["reward"]
        for memory in (None, 150.0)
    )
    assert forgets["bandit, second half"]["low"] > keeps["bandit, second half"]["high"]


def test_the_bundled_data_are_whole() -> None:
    digits, phishing = bundled("digits"), bundled("phishing")
    assert digits.contexts.shape == (1797, 17)
    assert digits.rewards.sum() == 1797
    assert phishing.contexts.shape == (1250, 10)


def test_a_log_of_ones_own_is_judged_by_its_propensities(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(log_lines(small(), whole=False))
    assert isinstance(read_log(path), Logged)
    done = CliRunner().invoke(cli, ["eval", "bandit", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["estimates"]["greedy"]["dr"]["value"] > 0.8
    assert found["estimates"]["always arm 1"]["ips"]["low"] < 0.36
    path.write_text(log_lines(small(), whole=True))
    assert isinstance(read_log(path), Rewards)


@pytest.mark.parametrize(
    "line",
    ["{}", '{"context": [1], "arm": "a", "propensity": 0, "reward": 1}', "nonsense"],
)
def test_a_line_that_is_no_choice_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"context": [1], "arm": "a", "propensity": 1, "reward": 1}}\n{line}\n')
    with pytest.raises(DataInvalid, match="line 2"):
        read_log(path)


def test_the_guard_catches_liars_and_the_model_is_better_for_it() -> None:
    data = small(900)
    bare = run(data, Attack(0.3, "alone", defended=False), 0)
    guarded = run(data, Attack(0.3, "alone", defended=True), 0)
    assert guarded.lies_caught > 0.3
    assert guarded.honest_caught < 0.05
    assert guarded.reward >= bare.reward
