"""How a user's ratings stand to what others say, and what is usual among users.

A user's ratings are held against what the reward model and other users say of the same answers: the
slope of the one on the other is near 1 for who judges as others do and negative for who says the
opposite, and answers of which nobody knows anything count nothing in it. The spread around the
median user is the median deviation (Hampel 1974), so up to half of the users may lie before they
move either far.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import median
from typing import Final

import msgspec

# What is known of a user is of about the last so many events.
_MEMORY: Final = 200.0
_KEPT: Final = 1.0 - 1.0 / _MEMORY
# What is usual is computed again after so many events, of users whose ratings met so much that was
# expected (the sum of its squares); it takes so many users.
_SURVEY_EVENTS: Final = 20
_MET_MIN: Final = 0.5
_USERS_MIN: Final = 8
# From the median deviation to the standard deviation of normal numbers.
_NORMAL: Final = 1.4826
_SPREAD_MIN: Final = 0.1
_VARIANCE_MIN: Final = 0.01


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

    def spoke(self, at_ms: int, repeated: bool) -> None:
        """Feedback came; `repeated`: its correction was said before."""
        elapsed_min = max(at_ms - self.last_ms, 0) / 60_000.0
        # Decays by half in half a minute: a burst shows at once, a steady few do not.
        self.rate_per_min = self.rate_per_min * 0.5 ** (elapsed_min * 2.0) + 1.0
        self.last_ms = max(at_ms, self.last_ms)
        self.repeats += (float(repeated) - self.repeats) / min(self.events + 1.0, _MEMORY)

    def rated(self, expected: float, reward: float) -> None:
        """A rating came, of an answer of which others expected a reward."""
        self.events = self.events * _KEPT + 1.0
        self.expected_squared = self.expected_squared * _KEPT + expected**2
        self.expected_given = self.expected_given * _KEPT + expected * reward
        self.given_squared = self.given_squared * _KEPT + reward**2
        self.given = self.given * _KEPT + reward


class Crowd(msgspec.Struct):
    """The median user's slope, how far users are from it, and one rating's variance."""

    events: int = 0
    users: int = 0
    median: float = 0.0
    spread: float = 0.0
    variance: float = 0.0

    def survey(self, users: Collection[User]) -> None:
        """Counts an event, and looks at all users from time to time."""
        self.events += 1
        if self.events % _SURVEY_EVENTS:
            return
        heard = [user for user in users if user.expected_squared >= _MET_MIN]
        self.users = len(heard)
        if heard:
            self.median = median(user.slope for user in heard)
            away = median(abs(user.slope - self.median) for user in heard)
            self.variance = median(user.variance for user in heard)
            # Slopes differ by chance alone; only what is more than that is what people are like.
            by_chance = self.variance / median(user.expected_squared for user in heard)
            self.spread = math.sqrt(max((_NORMAL * away) ** 2 - by_chance, 0.0))

    def distance(self, user: User) -> float:
        """How many deviations a user's slope is below the median user's."""
        if self.users < _USERS_MIN or user.expected_squared < _MET_MIN:
            return 0.0
        by_chance = self.variance / user.expected_squared
        error = math.sqrt(max(self.spread, _SPREAD_MIN) ** 2 + by_chance)
        return max((self.median - user.slope) / error, 0.0)
