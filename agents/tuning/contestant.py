"""One candidate of a tuning: a shadow adapter with a ledger of its own."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from agents.learning.adapter_learning import lora_shape
from agents.learning.parts import open_learner, promised
from agents.learning.promise import open_promise
from agents.settings import LearnSettings
from agents.tuning.chunk import Chunk
from models.engine.load import Loaded
from models.learning.cohort_gradient import Contribution
from models.learning.examples import Cohort, TrainingExample
from models.learning.gate import GateQuestion
from models.learning.lora import new_adapter
from models.learning.quality import mean_loss
from models.learning.rounds import Judgement, Rounds
from models.learning.tuning import SCORE
from models.privacy.ledger import Opening, Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.noise import Tensors
from models.privacy.randomness import NoiseKey


class Contestant:
    """Goes on from wherever its ledger says. Raises LedgerBroken where it began otherwise."""

    def __init__(
        self,
        name: str,
        store: LedgerStore,
        settings: LearnSettings,
        loaded: Loaded,
        model: str,
        folder: Path,
        more_promised: dict[str, str | int | float | bool],
    ) -> None:
        shape = lora_shape(settings)
        adapter = new_adapter(loaded.model, shape)
        key = NoiseKey.open(folder / f"{name}.noise-key")
        self.opening: Opening = open_promise(
            store,
            name,
            settings,
            settings.cohort_size,
            key,
            adapter,
            promised(settings, model) | more_promised,
        )
        self.learner = open_learner(loaded, settings, shape, self.opening, key, adapter)
        self._versions = folder / "versions"
        self._rounds = Rounds(store, self.opening, self.learner, self._versions, model)
        self.rounds: list[Round] = store.rounds(name)

    def learn(
        self,
        chunk: Chunk,
        first: int,
        questions: Sequence[GateQuestion],
        judged: set[int],
        stopped: threading.Event,
    ) -> None:
        """What is left of a chunk, whose first round has the number `first`, until it is stopped.

        With questions, rounds in `judged` are scored by them, after the step. Without, each round
        is scored by what it learns from, before it does: progressive validation.
        """
        size = self.opening.cohort_size
        for begin in range((len(self.rounds) - first) * size, len(chunk.examples), size):
            if stopped.is_set():
                return
            number = len(self.rounds)
            found = chunk.examples[begin : begin + size]
            parts = [self.learner.contribution([example]) for example in found]

            def judge(candidate: Tensors, parts: Sequence[Contribution] = parts) -> Judgement:
                if not questions:
                    return _scored(math.fsum(part.losses[0] for part in parts) / len(parts))
                if number not in judged:  # noqa: B023 - called within this round.
                    return Judgement(released=False, evaluation={})
                return _scored(self._answered(candidate, questions))

            cohort = Cohort(number, {example.user: [example] for example in found})
            record, _ = self._rounds.finish(cohort, chunk.offsets, judge, parts)
            self.rounds.append(record)
            self._forget_before(record)

    def close(self) -> None:
        self.learner.close()

    def _answered(self, candidate: Tensors, questions: Sequence[GateQuestion]) -> float:
        answers = [
            self.learner.encode(
                TrainingExample(
                    example_id="", user="", messages=question.messages, correction=question.answer
                )
            ).answer
            for question in questions
        ]
        return mean_loss(self.learner.model, candidate, answers)

    def _forget_before(self, record: Round) -> None:
        """Nobody will ask for the files of the rounds before."""
        kept = self._rounds.folder(record.model_version, record.context)
        for folder in self._versions.glob(f"{self.opening.adapter}-*"):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)


def _scored(loss: float) -> Judgement:
    # Never released: a candidate is there to be compared with others.
    return Judgement(released=False, evaluation={SCORE: loss})
