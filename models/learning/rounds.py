"""Rounds that survive being killed: learner, artifacts and ledger, in `ledger_store`'s order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.learning.adapter_files import write_adapter
from models.learning.cohort_gradient import CohortGradient, Contribution
from models.learning.examples import Cohort
from models.learning.learner import Learner
from models.privacy.ledger import Opening, Round, declared_epsilon
from models.privacy.ledger_store import LedgerStore
from models.privacy.noise import Tensors
from models.privacy.participation import Participation
from schemas.errors import LedgerBroken


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a candidate goes live, and the figures that say so.

    They are published with the ledger: never take them from private examples.
    """

    released: bool
    evaluation: dict[str, float]


class Rounds:
    """The rounds of one adapter, from wherever a predecessor left off.

    `offsets` are the next to be read of each source, and `participation` is for the assembler of
    cohorts. After any error but BudgetSpent, close everything and begin anew from the store.
    """

    def __init__(
        self, store: LedgerStore, opening: Opening, learner: Learner, artifacts: Path, base: str
    ) -> None:
        """Opens or resumes the adapter. Raises LedgerBroken where it began with another promise."""
        self._store = store
        self._adapter = opening.adapter
        self._learner = learner
        self._artifacts = artifacts
        self._base = base
        if learner.mechanism.plan != opening.plan:
            raise LedgerBroken(
                "The learner's privacy plan is not the one of the ledger.",
                "Build the learner's mechanism from the opening's plan.",
            )
        resumed = store.open_adapter(opening, learner.state())
        learner.restore(resumed.state)
        self.number = resumed.rounds
        self.offsets = resumed.offsets
        self.participation = Participation(opening.plan, resumed.taken)

    def finish(
        self,
        cohort: Cohort,
        offsets: dict[str, int],
        judge: Callable[[Tensors], Judgement],
        contributions: Sequence[Contribution] | None = None,
        parent_version: str | None = None,
    ) -> tuple[Round, CohortGradient]:
        """One round. `offsets` are the next to be read once it is done; `contributions` are those
        of the cohort's users where they were computed already; `parent_version` is what is live,
        where that is no release of this ledger.

        1. The learner steps, in memory.
        2. The candidate is written, durable, in a folder named by its input.
        3. Ledger, participation, examples, offsets, state and release change in one transaction.

        Publishing is step 4, and the caller's: `LedgerStore.unpublished`. Raises BudgetSpent,
        Fenced, LedgerBroken.
        """
        context = self._learner.context(cohort)
        norm = self._learner.max_grad_norm
        found = self._learner.step(cohort, contributions)
        judgement = judge(self._learner.adapter)
        if judgement.released:
            self._learner.released()
        version = f"{self._adapter}-{self.number + 1}"
        folder = self.folder(version, context.hex())
        digest = write_adapter(folder, self._learner.adapter, self._learner.shape, self._base)
        plan = self._learner.mechanism.plan
        record = Round(
            number=self.number,
            users=cohort.users,
            epsilon=declared_epsilon(plan, self.number + 1),
            delta=plan.delta,
            max_grad_norm=norm,
            offsets=offsets,
            context=context.hex(),
            artifact_sha256=digest,
            model_version=version,
            released=judgement.released,
            time_ms=time.time_ns() // 1_000_000,
            evaluation=judgement.evaluation,
            parent_version=parent_version,
        )
        self._store.commit_round(self._adapter, record, cohort.example_ids, self._learner.state())
        self.number += 1
        self.offsets = self.offsets | offsets
        return record, found

    def folder(self, version: str, context: str) -> Path:
        """Where the artifact of a round lies.

        Named by what it was computed from: done again after a crash, the round finds its own
        folder, and one with other input never finds another's.
        """
        return self._artifacts / f"{version}-{context[:16]}"
