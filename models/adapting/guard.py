"""Whom to believe: feedback that is spammed, repeated or at odds with all else is set aside.

A user whose ratings lie further than the crowd's from what the reward model and other users say of
the same answers loses weight, and is quarantined once that cannot be chance any more. One event at
odds proves nothing: people differ. Time is the event's own, so that a replay decides alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import msgspec

from models.adapting.unusual import Unusual, UnusualState

USERS_MAX: Final = 10_000
TEXTS_MAX: Final = 5_000
# Of the exponential averages: about the last so many events.
_MEMORY: Final = 50.0
_CROWD_MEMORY: Final = 1_000.0
_CROWD_MIN: Final = 50
# Deviations from the crowd at which a user's word counts nothing.
_DISTRUSTED: Final = 3.0
_RATE_PER_MIN_MAX: Final = 30.0
_REPEATS_MAX: Final = 5


class User(msgspec.Struct):
    """What is known of one user: averages over recent events, and when the last one came."""

    events: float = 0.0
    oddness: float = 0.0
    rate_per_min: float = 0.0
    repeats: float = 0.0
    reward_mean: float = 0.0
    last_ms: int = 0


class Said(msgspec.Struct):
    """What all users said of one text."""

    count: int = 0
    total: float = 0.0


class GuardState(msgspec.Struct, frozen=True):
    """All that the guard knows, as plain numbers that JSON keeps exactly."""

    users: dict[str, User]
    answers: dict[str, Said]
    corrections: dict[str, Said]
    crowd_events: int
    crowd_mean: float
    crowd_variance: float
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
    crowd_events: int = 0
    crowd_mean: float = 0.0
    crowd_variance: float = 0.0
    unusual: Unusual = field(default_factory=Unusual)

    def judge(self, signal: Signal) -> Judged:
        """Decides on one event, and learns from it what the crowd and this user are like."""
        user = self.users.pop(signal.user, None) or User()
        self.users[signal.user] = user
        _forget(self.users, USERS_MAX)
        oddness, dissent = self._oddness(signal)
        repeated = self._repeated(signal.correction)
        _note(user, signal, repeated, oddness)
        features = _features(user, oddness or 0.0, dissent)
        reasons = {
            f"{user.rate_per_min:.0f} pieces of feedback a minute": (
                user.rate_per_min > _RATE_PER_MIN_MAX
            ),
            f"a correction said {repeated + 1} times": repeated >= _REPEATS_MAX,
            "unlike all other feedback": self.unusual.is_unusual(features),
        }
        distance = self._distance(user)
        if oddness is not None:
            self._note_crowd(oddness)
            reasons[f"a user at odds with the others by {distance:.1f} deviations"] = (
                distance >= _DISTRUSTED
            )
        weight = min(max(1.0 - distance / _DISTRUSTED, 0.0), 1.0)
        return Judged(weight, tuple(reason for reason, found in reasons.items() if found))

    def _oddness(self, signal: Signal) -> tuple[float | None, float]:
        """How far a reward is from what is said of such answers, and of this one by others."""
        if signal.reward is None:
            return None, 0.0
        said = self.answers.pop(signal.answer, None) or Said()
        self.answers[signal.answer] = said
        _forget(self.answers, TEXTS_MAX)
        expected = (signal.expected + said.total) / (1.0 + said.count)
        dissent = abs(signal.reward - said.total / said.count) if said.count else 0.0
        said.count += 1
        said.total += signal.reward
        return abs(signal.reward - expected), dissent

    def _repeated(self, correction: str) -> int:
        """How often this correction came before."""
        if not correction:
            return 0
        said = self.corrections.pop(correction, None) or Said()
        self.corrections[correction] = said
        _forget(self.corrections, TEXTS_MAX)
        said.count += 1
        return said.count - 1

    def _distance(self, user: User) -> float:
        """How many deviations a user's average oddness is over the crowd's."""
        if self.crowd_events < _CROWD_MIN or self.crowd_variance <= 0.0:
            return 0.0
        error = math.sqrt(self.crowd_variance / max(user.events, 1.0))
        return max((user.oddness - self.crowd_mean) / error, 0.0)

    def _note_crowd(self, oddness: float) -> None:
        self.crowd_events += 1
        share = max(1.0 / self.crowd_events, 1.0 / _CROWD_MEMORY)
        change = oddness - self.crowd_mean
        self.crowd_mean += share * change
        self.crowd_variance = (1.0 - share) * (self.crowd_variance + share * change * change)

    def state(self) -> GuardState:
        """What `restore` needs."""
        return GuardState(
            self.users,
            self.answers,
            self.corrections,
            self.crowd_events,
            self.crowd_mean,
            self.crowd_variance,
            self.unusual.state(),
        )

    def restore(self, state: GuardState) -> None:
        """Goes on as if there had been no restart."""
        self.users, self.answers = state.users, state.answers
        self.corrections = state.corrections
        self.crowd_events = state.crowd_events
        self.crowd_mean, self.crowd_variance = state.crowd_mean, state.crowd_variance
        self.unusual.restore(state.unusual)


def _note(user: User, signal: Signal, repeated: int, oddness: float | None) -> None:
    """Bring a user's averages up to date."""
    elapsed_min = max(signal.at_ms - user.last_ms, 0) / 60_000.0
    # Decays by half a minute: a burst shows at once, a steady few do not.
    user.rate_per_min = user.rate_per_min * 0.5 ** (elapsed_min * 2.0) + 1.0
    user.last_ms = max(signal.at_ms, user.last_ms)
    user.repeats += (float(repeated > 0) - user.repeats) / min(user.events + 1.0, _MEMORY)
    if signal.reward is None or oddness is None:
        return
    user.events = min(user.events + 1.0, _MEMORY)
    user.oddness += (oddness - user.oddness) / user.events
    user.reward_mean += (signal.reward - user.reward_mean) / user.events


def _features(user: User, oddness: float, dissent: float) -> dict[str, float]:
    """What the trees see, each from 0 to 1."""
    return {
        "rate": user.rate_per_min / (user.rate_per_min + 10.0),
        "repeats": user.repeats,
        "oddness": min(oddness / 2.0, 1.0),
        "user_oddness": min(user.oddness / 2.0, 1.0),
        "dissent": min(dissent / 2.0, 1.0),
        "one_sided": abs(user.reward_mean),
    }


def _forget(known: dict[str, User] | dict[str, Said], most: int) -> None:
    """Drop the entry longest unheard of; each is put last when it is heard of."""
    if len(known) > most:
        known.pop(next(iter(known)))
