"""Who may take part in which round: the promise that the accounting rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from models.privacy.plan import Plan


@dataclass(frozen=True, slots=True)
class Taken:
    """How often a user took part, and in which round last (from 0)."""

    count: int
    last_round: int


class Participation:
    """Each user in at most `participations_max` rounds, any two `separation_min` or more apart.

    A refused user's examples are not used at all, not even later. `none` refuses nobody.
    """

    def __init__(self, plan: Plan, taken: dict[str, Taken] | None = None) -> None:
        self._plan = plan
        self._taken = dict(taken or {})

    def admits(self, user: str, round_number: int) -> bool:
        """Whether `user` may take part in the round; says nothing of the user's data."""
        taken = self._taken.get(user)
        if taken is None or not self._plan.private:
            return True
        apart = round_number - taken.last_round
        return taken.count < self._plan.participations_max and apart >= self._plan.separation_min

    def record(self, users: Iterable[str], round_number: int) -> None:
        """Counts a round for each of `users`, once the round is durable."""
        for user in users:
            count = self._taken[user].count if user in self._taken else 0
            self._taken[user] = Taken(count + 1, round_number)
