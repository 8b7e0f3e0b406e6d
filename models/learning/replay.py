"""Rounds done again as the ledger tells of them: the same weights to the last bit, or why not.

Everything that a round depends on is in its context: weights, optimizer, noise state, settings and
examples. So a difference is found before the step that it would change, and the noise that is drawn
is that of the release; with other input it would be other noise. Nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from models.learning.adapter_files import artifact_bytes
from models.learning.examples import Cohort
from models.learning.learner import Learner
from models.learning.lora import LoraShape
from models.privacy.ledger import Round
from models.privacy.noise import Tensors
from schemas.errors import DataInvalid

Adapter = tuple[Tensors, LoraShape]


def replay(
    learner: Learner,
    rounds: Sequence[Round],
    cohorts: Sequence[Cohort],
    version: Callable[[str], Adapter],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Does the rounds again with a learner that stands at the beginning, one cohort for each.

    `version` gives the weights of a version that others put live meanwhile. Raises DataInvalid,
    with the round, where its input or its result is not the ledger's.
    """
    for record, cohort in zip(rounds, cohorts, strict=True):
        if record.parent_version is not None:
            _adopt(learner, *version(record.parent_version))
        if learner.context(cohort).hex() != record.context:
            raise DataInvalid(
                f"Round {record.number} was computed from other input than there is now.",
                "Its examples, the base model or its number format have changed; see "
                "HEADWATER_LEARN_DEVICE and HEADWATER_LEARN_DTYPE.",
            )
        # One by one, as they were when they came: together they would be rounded otherwise.
        parts = [learner.contribution(found) for found in cohort.examples.values()]
        learner.step(cohort, parts)
        found = hashlib.sha256(artifact_bytes(learner.adapter)).hexdigest()
        if found != record.artifact_sha256:
            raise DataInvalid(
                f"Round {record.number} has the same input, and its weights come out as {found}, "
                f"not as {record.artifact_sha256}.",
                "Bits are the same on the same machine only: use its processor, its torch and its "
                "HEADWATER_LEARN_THREADS.",
            )
        if record.released:
            learner.released()
        report(record.number + 1, len(rounds))


def _adopt(learner: Learner, adapter: Tensors, shape: LoraShape) -> None:
    """As the learner did: a version of another rank is compared with, and not added."""
    if learner.adapter.keys() == adapter.keys() and learner.shape == shape:
        learner.adopt(adapter)
