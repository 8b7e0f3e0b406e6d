"""What is learned from, and who may take part in which round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from models.engine.protocol import Message
from models.privacy.participation import Participation


class TrainingExample(msgspec.Struct, frozen=True, kw_only=True):
    """One person's feedback on one answer; a correction, a rating in [-1, 1], or both.

    `user` is a pseudonym. A correction teaches by itself; the rating counts where there is none.
    `weight` is how much it counts, from 0 to 1.
    """

    example_id: str
    user: str
    messages: tuple[Message, ...]
    completion: str = ""
    correction: str | None = None
    rating: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Cohort:
    """The examples of one round, by user in the order of arrival."""

    number: int
    examples: dict[str, list[TrainingExample]]

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(self.examples)

    @property
    def example_ids(self) -> list[str]:
        return [example.example_id for found in self.examples.values() for example in found]


class CohortAssembler:
    """The next `cohort_size` distinct users in order of arrival make a cohort.

    It depends on who asks to take part and when, never on what they wrote. More examples of a user
    of the open cohort are taken, up to `examples_per_user_max`; what is refused is not kept.
    """

    def __init__(
        self,
        cohort_size: int,
        examples_per_user_max: int,
        participation: Participation,
        number: int,
    ) -> None:
        self._cohort_size = cohort_size
        self._examples_per_user_max = examples_per_user_max
        self._participation = participation
        self._open = Cohort(number, {})

    def add(self, example: TrainingExample) -> Cohort | None:
        """The cohort that this example completes, if it does."""
        found = self._open.examples.get(example.user)
        if found is None and self._participation.admits(example.user, self._open.number):
            found = self._open.examples.setdefault(example.user, [])
        if found is not None and len(found) < self._examples_per_user_max:
            found.append(example)
        if len(self._open.examples) < self._cohort_size:
            return None
        return self._close()

    def pending(self, user: str) -> list[TrainingExample]:
        """What was taken of a user of the open cohort, so far."""
        return list(self._open.examples.get(user, []))

    def _close(self) -> Cohort:
        complete = self._open
        self._participation.record(complete.users, complete.number)
        self._open = Cohort(complete.number + 1, {})
        return complete


def assemble(examples: Sequence[TrainingExample], assembler: CohortAssembler) -> list[Cohort]:
    """The complete cohorts of a finished stream; the last, unfinished one is left out."""
    return [cohort for example in examples if (cohort := assembler.add(example)) is not None]
