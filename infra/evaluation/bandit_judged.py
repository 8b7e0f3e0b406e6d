"""Policies that nobody was served by, judged from a log of choices with their chances."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from infra.evaluation.bandit_data import Logged
from models.adapting.bandit import Bandit
from models.adapting.off_policy import (
    Estimate,
    Log,
    doubly_robust_estimate,
    importance_estimate,
    self_normalised_estimate,
)
from models.adapting.policy import Vector

# Student's t for 20 seeds; for a few the interval says little anyway.
_STUDENT: Final = 2.093

Figures = dict[str, Any]


def never_live(expected: Vector) -> dict[str, Vector]:
    """Policies that nobody was served by: what the model thinks best, the best single arm by it,
    and a uniform choice; chances (n, arms) each."""
    count, arms = expected.shape
    single = np.tile(np.eye(arms)[int(expected.mean(0).argmax())], (count, 1))
    return {
        "greedy": np.eye(arms)[expected.argmax(1)],
        "single": single,
        "uniform": np.full((count, arms), 1.0 / arms),
    }


def estimates_of_target(log: Log, target: Vector, expected: Vector) -> dict[str, Estimate]:
    """All estimators on one policy."""
    return {
        "ips": importance_estimate(log, target),
        "snips": self_normalised_estimate(log, target),
        "dr": doubly_robust_estimate(log, target, expected),
    }


def evaluate_log(data: Logged) -> Figures:
    """What each arm alone, and a policy learned from the first half, would have earned in the
    second: for logs that know the reward of the drawn arm only."""
    half = len(data.contexts) // 2
    bandit = Bandit(data.arms, data.contexts.shape[1])
    for number in range(half):
        arm = int(data.log.arms[number])
        chance, reward = float(data.log.propensities[number]), float(data.log.rewards[number])
        bandit.update(arm, data.contexts[number], reward, chance)
    log = Log(data.log.arms[half:], data.log.propensities[half:], data.log.rewards[half:])
    expected = data.contexts[half:] @ bandit.estimates().means.T
    targets = never_live(expected)
    targets |= {
        f"always {arm}": np.tile(np.eye(len(data.arms))[number], (len(expected), 1))
        for number, arm in enumerate(data.arms)
    }
    judged = {name: estimates_of_target(log, target, expected) for name, target in targets.items()}
    return {
        "events": len(data.contexts),
        "judged_on": len(expected),
        "logged_reward": interval(list(log.rewards)),
        "estimates": {
            name: {kind: _told(estimate) for kind, estimate in by_kind.items()}
            for name, by_kind in judged.items()
        },
    }


def _told(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its interval of 95 %, over seeds."""
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    half = _STUDENT * spread / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half}
