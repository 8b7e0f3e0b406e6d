"""`headwater eval bandit`: the river's own bandit on rewards that are known.

Each seed shuffles the events and runs them as a stream: the bandit draws, sees one reward, learns.
Then a policy is frozen, logs the second part of the stream, and policies that were never live are
judged from that log alone; what they would really have earned is counted beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from infra.evaluation.bandit_data import Rewards
from infra.evaluation.bandit_judged import Figures, estimates_of_target, interval, never_live
from models.adapting.bandit import Bandit
from models.adapting.off_policy import Estimate, Log
from models.adapting.policy import Rule, Vector, draw, propensities

# What is logged for off-policy estimates: all after this share of the stream.
_LEARNED_SHARE: Final = 0.4
# At least so much of that log is explored: estimates from a log that hardly is are of no use.
_EXPLORED: Final = 0.4


@dataclass(frozen=True, slots=True)
class Run:
    """One seed: mean reward of the stream, its second half and last quarter, and the estimates."""

    reward: float
    second_half: float
    last_quarter: float
    oracle: float
    best_fixed: float
    uniform: float
    least_propensity: float
    estimates: dict[str, dict[str, Estimate]]
    truths: dict[str, float]


def evaluate(
    data: Rewards, seeds: int, floor: float, memory: float | None = None, switch: bool = False
) -> Figures:
    """Mean reward and regret with intervals over seeds, and how often estimates hold.

    With a `switch` the world changes in the midst: the events come once more, in another order, and
    each arm earns what the one before it did. `memory` is the bandit's.
    """
    runs = [run_seed(data, seed, floor, memory, switch) for seed in range(seeds)]
    total = len(data.contexts) * (2 if switch else 1)
    gained = {
        "bandit": [run.reward for run in runs],
        "bandit, second half": [run.second_half for run in runs],
        "bandit, last quarter": [run.last_quarter for run in runs],
        "uniform": [run.uniform for run in runs],
        "best fixed": [run.best_fixed for run in runs],
        "oracle": [run.oracle for run in runs],
    }
    regret = {
        "against the oracle": [total * (run.oracle - run.reward) for run in runs],
        "against the best fixed": [total * (run.best_fixed - run.reward) for run in runs],
        "against uniform": [total * (run.uniform - run.reward) for run in runs],
    }
    return {
        "data": data.name,
        "events": total,
        "arms": len(data.arms),
        "seeds": seeds,
        "memory": memory,
        "switch": switch,
        "floor": floor,
        "least_propensity": min(run.least_propensity for run in runs),
        "reward": {name: interval(values) for name, values in gained.items()},
        "regret": {name: interval(values) for name, values in regret.items()},
        "held": _held(runs),
        "width": _widths(runs),
    }


def run_seed(
    data: Rewards, seed: int, floor: float, memory: float | None = None, switch: bool = False
) -> Run:
    """One shuffled stream."""
    contexts, rewards = _stream(data, seed, switch)
    rule = Rule(floor=floor)
    bandit = Bandit(data.arms, contexts.shape[1], memory=memory)
    cut = int(_LEARNED_SHARE * len(contexts))
    got = np.zeros(len(contexts))
    least = 1.0
    for number, features in enumerate(contexts):
        if number == cut:
            estimates, truths = _judge(bandit, contexts[cut:], rewards[cut:], floor, seed)
        chances = propensities(bandit.estimates(), features, rule)
        arm = draw(chances, f"{seed}/{number}")
        got[number] = rewards[number, arm]
        least = min(least, float(chances.min()))
        bandit.update(arm, features, got[number], float(chances[arm]))
    return Run(
        reward=float(got.mean()),
        second_half=float(got[len(got) // 2 :].mean()),
        last_quarter=float(got[-len(got) // 4 :].mean()),
        oracle=float(rewards.max(1).mean()),
        best_fixed=float(rewards.mean(0).max()),
        uniform=float(rewards.mean()),
        least_propensity=least,
        estimates=estimates,
        truths=truths,
    )


def _stream(data: Rewards, seed: int, switch: bool) -> tuple[Vector, Vector]:
    """Contexts and rewards in an order of the seed's own."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(data.contexts))
    if not switch:
        return data.contexts[order], data.rewards[order]
    again = random.permutation(len(data.contexts))
    changed = np.roll(data.rewards[again], 1, axis=1)
    both = np.concatenate([order, again])
    return data.contexts[both], np.concatenate([data.rewards[order], changed])


def _judge(
    bandit: Bandit, contexts: Vector, rewards: Vector, floor: float, seed: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, float]]:
    """Estimates from a log of the bandit as it stands, and what is true."""
    frozen = bandit.estimates()
    live = Rule(floor=max(floor, _EXPLORED / len(bandit.arms)), greed=10.0)
    chances = np.array([propensities(frozen, features, live) for features in contexts])
    arms = np.array([draw(row, f"log/{seed}/{n}") for n, row in enumerate(chances)])
    rows = np.arange(len(arms))
    log = Log(arms, chances[rows, arms], rewards[rows, arms])
    expected = contexts @ frozen.means.T
    targets = never_live(expected)
    found = {name: estimates_of_target(log, target, expected) for name, target in targets.items()}
    truths = {name: float((target * rewards).sum(1).mean()) for name, target in targets.items()}
    return found, truths


def _held(runs: list[Run]) -> dict[str, dict[str, float]]:
    """The share of seeds whose interval has the truth in it, by policy and estimator."""
    return {
        target: {
            kind: float(
                np.mean([run.estimates[target][kind].holds(run.truths[target]) for run in runs])
            )
            for kind in runs[0].estimates[target]
        }
        for target in runs[0].truths
    }


def _widths(runs: list[Run]) -> dict[str, dict[str, float]]:
    """How wide the intervals are, on average."""
    return {
        target: {
            kind: float(
                np.mean(
                    [
                        run.estimates[target][kind].high - run.estimates[target][kind].low
                        for run in runs
                    ]
                )
            )
            for kind in runs[0].estimates[target]
        }
        for target in runs[0].truths
    }
