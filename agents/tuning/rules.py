"""What a tuning is: its candidates, and which of its choices may depend on what people wrote.

Who stays is a choice that depends on the examples, and it is told to everybody. So there are three
ways, and no other:
- mechanism `none`: nothing is promised, and candidates are judged by progressive validation;
- a file that somebody declares public: the same, with the mechanism's noise, and nothing is spent;
- private examples: each candidate's training is a mechanism of its own, in a ledger, and all of
  them together have the budget that is named; they are judged on public questions alone, so that
  who stays is computed from what was paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agents.learning.paths import learning_folder
from agents.settings import LearnSettings
from models.learning.tuning import Candidate, Schedule, schedule_of
from models.privacy.composition import epsilon_share
from schemas.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class TuningRules:
    """One tuning, by its name. `users` are those of the first rung; `epsilon` is for all candidates
    together; `public` says that the examples may be known to everybody, and `guarded` that they
    are those which the guard lets through."""

    name: str
    candidates: tuple[Candidate, ...]
    users: int
    epsilon: float | None = None
    public: bool = False
    guarded: bool = False

    @property
    def schedule(self) -> Schedule:
        return schedule_of(self.candidates, self.users)

    def private(self, settings: LearnSettings) -> bool:
        """Whether somebody's privacy is spent."""
        return settings.mechanism != "none" and not self.public

    def check(self, settings: LearnSettings) -> None:
        """Raises SettingsInvalid where a choice would not be accounted for."""
        if len(self.candidates) < 2:
            raise SettingsInvalid(
                "There is nothing to choose from.", "Give two values at least, of one setting."
            )
        if self.private(settings) and self.epsilon is None:
            raise SettingsInvalid(
                f"With mechanism {settings.mechanism} a choice by private examples has to be paid "
                "for.",
                "Give --epsilon, a budget of its own which adds to the adapter's; or --public, a "
                "file of examples that are nobody's secret.",
            )
        if not self.private(settings) and self.epsilon is not None:
            raise SettingsInvalid(
                "There is nothing to spend --epsilon on: the examples are public, or the mechanism "
                "is none.",
                "Leave it out.",
            )

    def settings_of(self, candidate: Candidate, settings: LearnSettings) -> LearnSettings:
        """learn's settings with the candidate's own.

        In private each user counts in one round of each candidate, with an equal share of the
        budget. On public examples the noise is the one that learn would add.
        """
        own: dict[str, object] = {
            "learning_rate": candidate.learning_rate,
            "rank": candidate.rank,
            "max_grad_norm": candidate.max_grad_norm,
            "cohort_size": candidate.cohort_size,
            "examples_per_user_max": 1,
        }
        rounds = self.schedule.rounds(candidate)
        if self.private(settings) and self.epsilon is not None:
            share = epsilon_share(self.epsilon, settings.delta, len(self.candidates))
            own |= {"epsilon": share, "participations_max": 1, "separation_min": 1}
            own |= {"rounds_max": rounds}
        else:
            own |= {"rounds_max": max(rounds, settings.rounds_max)}
        return settings.model_copy(update=own)

    def promised(self, settings: LearnSettings) -> dict[str, str | int | float | bool]:
        """What every candidate's opening says of the tuning that it is a part of."""
        return {
            "tuning": self.name,
            "candidates": len(self.candidates),
            "tuning_epsilon": self.epsilon or 0.0,
            "examples": "private" if self.private(settings) else "public or unprotected",
            "rungs": ",".join(map(str, self.schedule.rungs)),
            "chunk": self.schedule.chunk,
            "guarded": self.guarded,
        }


def tuning_folder(settings: LearnSettings, name: str) -> Path:
    """Ledger, noise keys and open chunk of a tuning."""
    return learning_folder(settings) / "tuning" / name
