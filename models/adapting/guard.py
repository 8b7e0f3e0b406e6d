"""Whom to believe: feedback that is spammed, repeated or at odds with all else is set aside.

A user's ratings are held against what the reward model and other users say of the same answers: the
slope of the one on the other is near 1 for who judges as others do and negative for who says the
opposite, and answers of which nobody knows anything count nothing in it. A user whose slope is far
below the median user's loses weight, and is quarantined once that cannot be chance any more. One
event at odds proves nothing: people differ. The spread around the median user is the median
deviation (Hampel 1974), so up to half of the users may lie before they move either far. Time is the
event's own: a replay decides alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import msgspec

from models.adapting.unusual import Unusual, UnusualState

USERS_MAX: Final = 10_000
TEXTS_MAX: Final = 5_000
# What is known of a user is of about the last so many events.
_MEMORY: Final = 200.0
_KEPT: Final = 1.0 - 1.0 / _MEMORY
# What is usual is computed again after so many events, of users whose ratings met so much that was
# expected (the sum of its squares); it takes so many users.
_SURVEY_EVENTS: Final = 20
_MET_MIN: Final = 0.5
_USERS_MIN: Final = 8
# Deviations from the median user from which on a word counts less, and at which it counts nothing.
_DOUBTED: Final = 1.0
_DISTRUSTED: Final = 3.5
# From the median deviation to the standard deviation of normal numbers.
_NORMAL: Final = 1.4826
_SPREAD_MIN: Final = 0.1
_VARIANCE_MIN: Final = 0.01
_RATE_PER_MIN_MAX: Final = 30.0
_REPEATS_MAX: Final = 5


class User(msgspec.Struct):
    """What is known of one user: fading sums over events, of expected and given rewards."""

    events: float = 0.0
    expected_squared: float = 0.0
    expected_given: float = 0.0
    given_squared: float = 0.0
    given: float = 0.0
    rate_per_min: float = 0.0
    repeats: float = 0.0
    last_ms: int = 0

    @property
    def slope(self) -> float:
        """Of given on expected rewards; 1 where nothing is known."""
        return self.expected_given / self.expected_squared if self.expected_squared else 1.0

    @property
    def variance(self) -> float:
        """What the slope leaves unexplained of one rating."""
        left = self.given_squared - self.slope * self.expected_given
        return max(left / max(self.events, 1.0), _VARIANCE_MIN)


class Said(msgspec.Struct):
    """What all users said of one text."""

    count: int = 0
    total: float = 0.0


class Crowd(msgspec.Struct):
    """The median user's slope, how far users are from it, and one rating's variance."""

    events: int = 0
    users: int = 0
    median: float = 0.0
    spread: float = 0.0
    variance: float = 0.0


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
            self._survey()
        repeated = self._repeated(signal.correction)
        _note(user, signal, repeated, expected)
        features = _features(user, abs((signal.reward or 0.0) - expected), dissent)
        reasons = {
            f"{user.rate_per_min:.0f} pieces of feedback a minute": (
                user.rate_per_min > _RATE_PER_MIN_MAX
            ),
            f"a correction said {repeated + 1} times": repeated >= _REPEATS_MAX,
            "unlike all other feedback": self.unusual.is_unusual(features),
        }
        distance = self._distance(user)
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

    def _distance(self, user: User) -> float:
        """How many deviations a user's slope is below the median user's."""
        if self.crowd.users < _USERS_MIN or user.expected_squared < _MET_MIN:
            return 0.0
        by_chance = self.crowd.variance / user.expected_squared
        error = math.sqrt(max(self.crowd.spread, _SPREAD_MIN) ** 2 + by_chance)
        return max((self.crowd.median - user.slope) / error, 0.0)

    def _survey(self) -> None:
        """What is usual, from time to time."""
        self.crowd.events += 1
        if self.crowd.events % _SURVEY_EVENTS:
            return
        heard = [user for user in self.users.values() if user.expected_squared >= _MET_MIN]
        self.crowd.users = len(heard)
        if heard:
            self.crowd.median = median(user.slope for user in heard)
            away = median(abs(user.slope - self.crowd.median) for user in heard)
            self.crowd.variance = median(user.variance for user in heard)
            # Slopes differ by chance alone; only what is more than that is what people are like.
            by_chance = self.crowd.variance / median(user.expected_squared for user in heard)
            self.crowd.spread = math.sqrt(max((_NORMAL * away) ** 2 - by_chance, 0.0))

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


def _note(user: User, signal: Signal, repeated: int, expected: float) -> None:
    """Bring what is known of a user up to date."""
    elapsed_min = max(signal.at_ms - user.last_ms, 0) / 60_000.0
    # Decays by half in half a minute: a burst shows at once, a steady few do not.
    user.rate_per_min = user.rate_per_min * 0.5 ** (elapsed_min * 2.0) + 1.0
    user.last_ms = max(signal.at_ms, user.last_ms)
    user.repeats += (float(repeated > 0) - user.repeats) / min(user.events + 1.0, _MEMORY)
    if signal.reward is None:
        return
    user.events = user.events * _KEPT + 1.0
    user.expected_squared = user.expected_squared * _KEPT + expected**2
    user.expected_given = user.expected_given * _KEPT + expected * signal.reward
    user.given_squared = user.given_squared * _KEPT + signal.reward**2
    user.given = user.given * _KEPT + signal.reward


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
