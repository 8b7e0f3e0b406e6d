"""What one adapt worker knows: bandit, reward model, guard, labels; one outcome at a time.

No Kafka here. The state depends on the outcomes and their order alone, never on a clock or on how
they were batched: read again from the offset kept beside it, it becomes the same, bit for bit.
Everything in here belongs to one thread: the database allows no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from agents.adapting.settings import AdaptSettings
from models.adapting.bandit import Bandit, BanditState
from models.adapting.features import QUESTION_FEATURES
from models.adapting.store import AdaptStore
from models.adapting.variants import LEARNER, read_variants
from models.judging.guard import Guard, GuardState, Judged, Signal
from models.judging.labels import LabelTallies
from models.judging.reward_model import RewardModel, RewardState
from schemas.events import ArmEstimate, Choice, Outcome, Policy, Verdict
from schemas.topics import DAY_MS

# Outcomes are kept for 30 days, so none can come again later.
_SEEN_MS: Final = 31 * DAY_MS


Decision = Literal["accepted", "quarantined", "released"]


class State(msgspec.Struct, frozen=True):
    """All learners together, as the database keeps them."""

    reward: RewardState
    guard: GuardState
    labels: dict[str, dict[str, dict[str, dict[str, int]]]]
    counts: dict[str, int]
    newest_ms: int
    bandit: BanditState | None = None


class Adapting:
    """The learners, from wherever the database says. `acts` false: they only watch."""

    def __init__(self, settings: AdaptSettings, acts: bool, keeps_examples: bool) -> None:
        """`keeps_examples`: verdicts carry what they let through, for `learn` to read."""
        variants = read_variants(settings.variants, settings.floor)
        self._floor = settings.floor
        self._acts = acts
        self._keeps_examples = keeps_examples
        names = [variant.name for variant in variants]
        self.bandit = Bandit(names, QUESTION_FEATURES, memory=settings.memory_outcomes)
        self.reward = RewardModel()
        self.guard = Guard()
        self.labels = LabelTallies()
        self.counts: dict[str, int] = {}
        self.next_offset = 0
        self.newest_ms = 0
        self._new: dict[str, int] = {}
        self._store = AdaptStore(store_path(settings))
        if (known := self._store.read()) is not None:
            self.next_offset = known[0]
            self._restore(msgspec.json.decode(known[1], type=State))

    def add(self, outcome: Outcome, offset: int) -> Verdict | None:
        """Learns from one outcome; None for one that was learned from before.

        Quarantined ones are not learned from, until an operator releases them.
        """
        self.next_offset = offset + 1
        name = f"{outcome.outcome_id}/released" if outcome.released else outcome.outcome_id
        if name in self._new or self._store.seen(name):
            return None
        self._new[name] = outcome.at_ms
        self.newest_ms = max(self.newest_ms, outcome.at_ms)
        expected = self.reward.expected(outcome.features)
        judged = self._judged(outcome, expected)
        decision = _decision(outcome, judged)
        self.counts[decision] = self.counts.get(decision, 0) + 1
        if not self._acts and decision == "quarantined":
            decision, judged = "accepted", Judged(1.0)
        if decision != "quarantined":
            self._learn(outcome, expected, judged.weight if self._acts else 1.0)
        whole = decision == "quarantined" or (self._keeps_examples and outcome.example is not None)
        return Verdict(
            outcome_id=outcome.outcome_id,
            at_ms=outcome.at_ms,
            decision=decision,
            user=outcome.user,
            weight=judged.weight if self._acts else 1.0,
            reasons=list(judged.reasons),
            outcome=outcome if whole else None,
        )

    def policy(self) -> Policy | None:
        """How variants are to be drawn from now on; None where none are on trial."""
        if not self.bandit.arms:
            return None
        estimates = self.bandit.estimates()
        arms = [
            ArmEstimate(name, mean.tolist(), covariance.ravel().tolist())
            for name, mean, covariance in zip(
                self.bandit.arms, estimates.means, estimates.covariances, strict=True
            )
        ]
        version, learns = self.bandit.updates, self._acts
        return Policy(LEARNER, version, self.newest_ms, self._floor, arms, learns)

    def commit(self) -> None:
        """State and offset, in one transaction."""
        forgotten_ms = self.newest_ms - _SEEN_MS
        self._store.commit(self.next_offset, self.encoded(), self._new.items(), forgotten_ms)
        self._new.clear()

    def encoded(self) -> bytes:
        """The state as it is kept: numbers in JSON, which keeps each float exactly."""
        state = State(
            self.reward.state(),
            self.guard.state(),
            self.labels.counts,
            self.counts,
            self.newest_ms,
            self.bandit.state() if self.bandit.arms else None,
        )
        return msgspec.json.encode(state)

    def close(self) -> None:
        """Closes the database; what was not committed will be read again."""
        self._store.close()

    def _judged(self, outcome: Outcome, expected: float) -> Judged:
        if outcome.released:
            return Judged(1.0)
        return self.guard.judge(
            Signal(
                outcome.user,
                outcome.at_ms,
                outcome.reward,
                expected,
                outcome.answer_fingerprint or outcome.generation_id,
                outcome.correction_fingerprint,
            )
        )

    def _learn(self, outcome: Outcome, expected: float, weight: float) -> None:
        self.labels.add(outcome.labels, outcome.predicted, outcome.model_version)
        if outcome.reward is None:
            return
        self.reward.judge(expected, outcome.reward, outcome.model_version)
        self.reward.learn(outcome.features, outcome.reward, weight)
        if outcome.choice is not None and self._acts:
            self._play(outcome.choice, outcome.reward, weight)

    def _play(self, choice: Choice, reward: float, weight: float) -> None:
        """What a prompt's variant earned; one that is on trial no more teaches nothing."""
        known = choice.variant in self.bandit.arms and len(choice.features) == self.bandit.size
        if known and weight > 0.0:
            arm = self.bandit.arms.index(choice.variant)
            features = np.array(choice.features)
            self.bandit.update(arm, features, reward, choice.propensity, weight)

    def _restore(self, state: State) -> None:
        self.reward.restore(state.reward)
        self.guard.restore(state.guard)
        self.labels.counts = state.labels
        self.counts = state.counts
        self.newest_ms = state.newest_ms
        if state.bandit is not None:
            self.bandit.restore(state.bandit)


def _decision(outcome: Outcome, judged: Judged) -> Decision:
    if outcome.released:
        return "released"
    return "quarantined" if judged.reasons else "accepted"


def store_path(settings: AdaptSettings) -> Path:
    """Where the state is."""
    return settings.folder.expanduser().absolute() / "adapt.db"
