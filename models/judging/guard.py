"""Whom to believe: feedback that is spammed, repeated or at odds with all else is set aside.

A user whose ratings follow what others say far less than the median user's do loses weight, and is
quarantined once that cannot be chance any more (`users`). One event at odds proves nothing: people
differ. Time is the event's own: a replay decides alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from models.judging.unusual import Unusual, UnusualState
from models.judging.users import Crowd, User

USERS_MAX: Final = 10_000
TEXTS_MAX: Final = 5_000
# Deviations from the median user from which on a word counts less, and at which it counts nothing.
_DOUBTED: Final = 1.0
_DISTRUSTED: Final = 3.5
_RATE_PER_MIN_MAX: Final = 30.0
_REPEATS_MAX: Final = 5


class Said(msgspec.Struct):
    """What all users said of one text."""

    count: int = 0
    total: float = 0.0


class GuardState(msgspec.Struct, frozen=True):
    """All that the guard knows, as plain numbers that JSON keeps exactly."""

    users: dict[str, User]
    answers: dict[str, Said]
    corrections: dict[str, Said]
    crowd: Crowd
    unusual: UnusualState


@dataclass(frozen=True, slots=True)
class Signal:
    """One piece of feedback as the guard sees it; fingerprints are equal for equal texts.

    `expected` is what the reward model said before. `reward` None: labels alone.
    """

    user: str
    at_ms: int
    reward: float | None
    expected: float
    answer: str
    correction: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """`weight` from 0 to 1; with reasons it is quarantined."""

    weight: float
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class Guard:
    """State of all users and of recent texts, bounded: the longest unheard of are forgotten."""

    users: dict[str, User] = field(default_factory=dict)
    answers: dict[str, Said] = field(default_factory=dict)
    corrections: dict[str, Said] = field(default_factory=dict)
    crowd: Crowd = field(default_factory=Crowd)
    unusual: Unusual = field(default_factory=Unusual)

    def judge(self, signal: Signal) -> Judged:
        """Decides on one event, and learns from it what the crowd and this user are like."""
        user = self.users.pop(signal.user, None) or User()
        self.users[signal.user] = user
        _forget(self.users, USERS_MAX)
        expected, dissent = self._expected(signal)
        if signal.reward is not None:
            self.crowd.survey(self.users.values())
        repeated = self._repeated(signal.correction)
        user.spoke(signal.at_ms, repeated > 0)
        if signal.reward is not None:
            user.rated(expected, signal.reward)
        features = _features(user, abs((signal.reward or 0.0) - expected), dissent)
        reasons = {
            f"{user.rate_per_min:.0f} pieces of feedback a minute": (
                user.rate_per_min > _RATE_PER_MIN_MAX
            ),
            f"a correction said {repeated + 1} times": repeated >= _REPEATS_MAX,
            "unlike all other feedback": self.unusual.is_unusual(features),
        }
        distance = self.crowd.distance(user)
        if signal.reward is not None:
            reasons[f"a user at odds with the others by {distance:.1f} deviations"] = (
                distance >= _DISTRUSTED
            )
        weight = min(max((_DISTRUSTED - distance) / (_DISTRUSTED - _DOUBTED), 0.0), 1.0)
        return Judged(weight, tuple(reason for reason, found in reasons.items() if found))

    def _expected(self, signal: Signal) -> tuple[float, float]:
        """What is said of such answers, and of this one by others; and how far they differ."""
        if signal.reward is None:
            return 0.0, 0.0
        said = self.answers.pop(signal.answer, None) or Said()
        self.answers[signal.answer] = said
        _forget(self.answers, TEXTS_MAX)
        expected = (signal.expected + said.total) / (1.0 + said.count)
        dissent = abs(signal.reward - said.total / said.count) if said.count else 0.0
        said.count += 1
        said.total += signal.reward
        return expected, dissent

    def _repeated(self, correction: str) -> int:
        """How often this correction came before."""
        if not correction:
            return 0
        said = self.corrections.pop(correction, None) or Said()
        self.corrections[correction] = said
        _forget(self.corrections, TEXTS_MAX)
        said.count += 1
        return said.count - 1

    def state(self) -> GuardState:
        """What `restore` needs."""
        return GuardState(
            self.users,
            self.answers,
            self.corrections,
            self.crowd,
            self.unusual.state(),
        )

    def restore(self, state: GuardState) -> None:
        """Goes on as if there had been no restart."""
        self.users, self.answers = state.users, state.answers
        self.corrections = state.corrections
        self.crowd = state.crowd
        self.unusual.restore(state.unusual)


def _features(user: User, oddness: float, dissent: float) -> dict[str, float]:
    """What the trees see, each from 0 to 1."""
    return {
        "rate": user.rate_per_min / (user.rate_per_min + 10.0),
        "repeats": user.repeats,
        "oddness": min(oddness / 2.0, 1.0),
        "slope": min(max(0.5 - user.slope / 4.0, 0.0), 1.0),
        "dissent": min(dissent / 2.0, 1.0),
        "one_sided": abs(user.given) / max(user.events, 1.0),
    }


def _forget(known: dict[str, User] | dict[str, Said], most: int) -> None:
    """Drop the entry longest unheard of; each is put last when it is heard of."""
    if len(known) > most:
        known.pop(next(iter(known)))
