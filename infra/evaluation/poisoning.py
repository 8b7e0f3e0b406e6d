"""`headwater eval poisoning`: what lying users do to bandit and reward model, and what the guard
saves.

Images of digits are prompts, the ten digits are variants, the right one is a good answer. Users
rate what the bandit drew: honest ones rate a good answer near 1 and a bad one near -1, with noise,
and one rating in twenty by mistake the other way round. Liars alone say the opposite. Coordinated
liars praise one wrong variant whenever it answers, with like words, and blame all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from infra.evaluation.bandit_data import Rewards
from models.adapting.bandit import Bandit
from models.adapting.policy import Rule, Vector, draw, propensities
from models.judging.guard import Guard, Judged, Signal
from models.judging.reward_model import RewardModel

Lies = Literal["none", "alone", "together"]

_USERS: Final = 60
_MISTAKES: Final = 0.05
_NOISE: Final = 0.15
_TEST_SHARE: Final = 0.2
_PASSES: Final = 4
_EVENT_MS: Final = 2_000
# What coordinated liars praise.
_PRAISED: Final = 3


@dataclass(frozen=True, slots=True)
class Attack:
    """Which share of the users lies, how, and whether the guard is on."""

    share: float
    lies: Lies
    defended: bool


@dataclass(frozen=True, slots=True)
class Damage:
    """One run: true reward of the last quarter of the stream and of the learned policy on test
    images (shares of good answers), the reward model's accuracy there, and which shares of the
    lies and of honest users' ratings the guard set aside."""

    reward: float
    test_reward: float
    model_accuracy: float
    lies_caught: float
    honest_caught: float


def attacks(shares: tuple[float, ...] = (0.1, 0.3)) -> list[Attack]:
    """All rows of the table."""
    found = [Attack(0.0, "none", defended) for defended in (False, True)]
    ways: tuple[Lies, ...] = ("alone", "together")
    return found + [
        Attack(share, lies, defended)
        for share in shares
        for lies in ways
        for defended in (False, True)
    ]


def evaluate(data: Rewards, seeds: int) -> list[dict[str, Any]]:
    """A row for each attack: means over seeds, with the standard error of the rewards."""
    rows = []
    for attack in attacks():
        runs = [run(data, attack, seed) for seed in range(seeds)]
        row: dict[str, Any] = {
            "liars": attack.share,
            "lies": attack.lies,
            "defended": attack.defended,
        }
        for name in Damage.__slots__:
            values = np.array([getattr(one, name) for one in runs])
            row[name] = round(float(np.nanmean(values)), 3) if np.isfinite(values).any() else None
        rewards = np.array([one.test_reward for one in runs])
        row["test_reward_error"] = round(float(rewards.std(ddof=1) / np.sqrt(len(runs))), 3)
        rows.append(row)
    return rows


def run(data: Rewards, attack: Attack, seed: int) -> Damage:
    """One stream of prompts, answers and ratings."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(data.contexts))
    cut = int(_TEST_SHARE * len(order))
    test, train = order[:cut], np.concatenate([order[cut:]] * _PASSES)
    river = _River(data.arms, data.contexts.shape[1], attack.defended)
    liars = set(range(round(attack.share * _USERS)))
    got, lied, honest, caught = np.zeros(len(train)), *np.zeros((3, len(train)), bool)
    for number, index in enumerate(train):
        features = data.contexts[index]
        arm, chance = river.choose(features, f"{seed}/{number}")
        good = bool(data.rewards[index, arm])
        user = int(random.integers(_USERS))
        rating, lied[number] = _rating(random, good, arm, attack.lies if user in liars else "none")
        honest[number] = user not in liars
        judged = river.take(arm, chance, features, rating, f"user-{user}", int(index), number)
        got[number], caught[number] = good, bool(judged.reasons)
    return Damage(
        reward=float(got[-len(got) // 4 :].mean()),
        test_reward=river.test_reward(data.contexts[test], data.rewards[test]),
        model_accuracy=river.model_accuracy(data.contexts[test], data.rewards[test]),
        lies_caught=float(caught[lied].mean()) if lied.any() else float("nan"),
        honest_caught=float(caught[honest].mean()),
    )


class _River:
    """Bandit, reward model and guard as adapt has them."""

    def __init__(self, arms: list[str], size: int, defended: bool) -> None:
        self._arms = arms
        self._bandit = Bandit(arms, size)
        self._reward = RewardModel()
        self._guard = Guard()
        self._defended = defended
        self._rule = Rule(floor=0.02)

    def choose(self, features: Vector, key: str) -> tuple[int, float]:
        chances = propensities(self._bandit.estimates(), features, self._rule)
        arm = draw(chances, key)
        return arm, float(chances[arm])

    def take(
        self,
        arm: int,
        chance: float,
        features: Vector,
        rating: float,
        user: str,
        index: int,
        number: int,
    ) -> Judged:
        numbers = self._numbers(arm, features)
        expected = self._reward.expected(numbers)
        signal = Signal(user, _EVENT_MS * number, rating, expected, f"{index}/{arm}")
        judged = self._guard.judge(signal) if self._defended else Judged(1.0)
        if not judged.reasons:
            self._reward.learn(numbers, rating, judged.weight)
            self._bandit.update(arm, features, rating, chance, judged.weight)
        return judged

    def test_reward(self, contexts: Vector, rewards: Vector) -> float:
        """The share of good answers that the learned policy gives, without exploring."""
        best = np.array([self._bandit.expected(features).argmax() for features in contexts])
        return float(rewards[np.arange(len(best)), best].mean())

    def model_accuracy(self, contexts: Vector, rewards: Vector) -> float:
        """How often the reward model tells a good answer from a bad one, as many of each."""
        right: list[bool] = []
        for features, row in zip(contexts, rewards, strict=True):
            good = int(row.argmax())
            bad = (good + 1 + len(right) % (len(row) - 1)) % len(row)
            better = self._reward.expected(self._numbers(good, features))
            right.append(better > self._reward.expected(self._numbers(bad, features)))
        return float(np.mean(right))

    def _numbers(self, arm: int, features: Vector) -> dict[str, float]:
        """What the reward model reads: the variant crossed with the question."""
        return {f"{self._arms[arm]}:{n}": float(value) for n, value in enumerate(features)}


def _rating(random: np.random.Generator, good: bool, arm: int, lies: Lies) -> tuple[float, bool]:
    """What a user says, and whether it is a lie."""
    said = good != (random.random() < _MISTAKES)
    if lies == "alone":
        said = not good
    elif lies == "together":
        said = arm == _PRAISED
    rating = (1.0 if said else -1.0) + float(random.normal(0.0, _NOISE))
    return float(np.clip(rating, -1.0, 1.0)), lies != "none" and said != good
