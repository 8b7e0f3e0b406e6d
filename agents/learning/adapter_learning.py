"""One adapter's learning, from wherever its ledger says: examples in, rounds out. No Kafka here.

Everything in here belongs to one thread: the ledger's database allows no other.
"""

from __future__ import annotations

from collections.abc import Callable

from agents.learning.parts import open_learner, promised
from agents.learning.paths import (
    gate_set_path,
    learning_folder,
    ledger_path,
    versions_folder,
)
from agents.learning.promise import in_its_format, open_promise
from agents.settings import GenerateSettings, LearnSettings
from models.engine.load import load
from models.learning.cohort_gradient import Contribution
from models.learning.examples import CohortAssembler, TrainingExample
from models.learning.gate import Gate, LiveVersion, read_questions
from models.learning.lora import LoraShape, new_adapter
from models.learning.rounds import Judgement, Rounds
from models.privacy.ledger import Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.noise import Tensors
from models.privacy.randomness import NoiseKey


class Learning:
    """Rounds of one adapter. `live` gives what its candidates are compared with, and `guarded`
    says that its examples are those that the guard let through, by their weights.

    Raises LedgerBroken where the adapter began with other settings: a promise is kept.
    """

    def __init__(
        self,
        settings: LearnSettings,
        model: str,
        live: Callable[[], LiveVersion | None],
        guarded: bool = False,
    ) -> None:
        questions = read_questions(gate_set_path(settings))
        self._adapter = settings.adapter
        self._live = live
        self.store = LedgerStore(ledger_path(settings))
        settings = in_its_format(settings, self.store.opening(settings.adapter))
        loaded = load(model, settings.cache_dir, settings.device, settings.dtype)
        key = NoiseKey.open(learning_folder(settings) / f"{settings.adapter}.noise-key")
        shape = lora_shape(settings)
        adapter = new_adapter(loaded.model, shape)
        self.opening = open_promise(
            self.store,
            settings.adapter,
            settings,
            settings.cohort_size,
            key,
            adapter,
            promised(settings, model) | {"guarded": guarded},
        )
        self._learner = open_learner(loaded, settings, shape, self.opening, key, adapter)
        self._gate = Gate(self._learner, questions, settings.gate_tolerance)
        self.rounds = Rounds(
            self.store, self.opening, self._learner, versions_folder(settings), model
        )
        self._assembler = CohortAssembler(
            settings.cohort_size,
            settings.examples_per_user_max,
            self.rounds.participation,
            self.rounds.number,
        )
        # Of the last round: what its examples cost before they were learned from. Of a private
        # adapter there is none, for it would tell of them.
        self.progressive: dict[str, float] = {}
        self._offsets = dict(self.rounds.offsets)
        # Of the open cohort; the ledger knows those of the others.
        self._seen: set[str] = set()
        # By user, with the examples that each was computed from: work that need not wait for the
        # cohort's last user. Each is computed alone, so that a round done again is the same one.
        self._contributions: dict[str, tuple[int, Contribution]] = {}

    @property
    def spent(self) -> bool:
        """Whether the plan allows no further round."""
        return self.rounds.number >= self.opening.plan.rounds_max

    def add(self, example: TrainingExample, source: str, next_offset: int) -> Round | None:
        """Takes one example, read from `source`; the round that it completed, if it did.

        One that was learned from already, or waits in the open cohort, is passed over. Raises
        EventInvalid for what the model's chat template refuses.
        """
        self._offsets[source] = next_offset
        known = example.example_id in self._seen
        if self.spent or known or self.store.used(self._adapter, example.example_id):
            return None
        # Here it can still be refused alone.
        self._learner.encode(example)
        self._seen.add(example.example_id)
        cohort = self._assembler.add(example)
        if cohort is None:
            if pending := self._assembler.pending(example.user):
                self._contribute(example.user, pending)
            return None
        parent = self._adopted()
        parts = [self._contribute(user, found) for user, found in cohort.examples.items()]
        found, step = self.rounds.finish(cohort, dict(self._offsets), self._judge, parts, parent)
        self.progressive = {} if self.opening.plan.private else _progressive(step.losses)
        self._seen.clear()
        self._contributions.clear()
        return found

    def _contribute(self, user: str, examples: list[TrainingExample]) -> Contribution:
        """A user's part of the next step, computed again only where examples have come since."""
        count, known = self._contributions.get(user, (0, None))
        if known is None or count != len(examples):
            known = self._learner.contribution(examples)
            self._contributions[user] = len(examples), known
        return known

    def close(self) -> None:
        """Closes the ledger."""
        self._learner.close()
        self.store.close()

    def _adopted(self) -> str | None:
        """Takes in a version that federation has put live since; its name, where there is one."""
        live = self._live()
        if live is None or live.origin != "federated":
            return None
        if self._learner.adapter.keys() != live.adapter.keys() or live.shape != self._learner.shape:
            # Of another rank or other layers: to be compared with, not to be added.
            return live.model_version
        if self._learner.adopt(live.adapter):
            # They were computed from other weights.
            self._contributions.clear()
        return live.model_version

    def _judge(self, candidate: Tensors) -> Judgement:
        live = self._live()
        if live is None:
            # What cannot be read cannot be beaten: better no release than a worse one.
            return Judgement(released=False, evaluation={})
        return self._gate.judge(candidate, live)


def _progressive(losses: list[list[float]]) -> dict[str, float]:
    """Each user's mean loss, and of these the mean."""
    users = [sum(each) / len(each) for each in losses if each]
    return {
        "users": float(len(users)),
        "examples": float(sum(map(len, losses))),
        "loss_mean": sum(users) / max(len(users), 1),
    }


def model_name(settings: LearnSettings, generate: GenerateSettings) -> str:
    """The base model: that of the answers, unless it is set."""
    return settings.model or generate.model


def lora_shape(settings: LearnSettings) -> LoraShape:
    """The adapter's, whoever teaches it."""
    targets = tuple(name.strip() for name in settings.targets.split(","))
    return LoraShape(settings.rank, 2.0 * settings.rank, targets)
