"""One adapter's federated rounds, from wherever its ledger says. No Kafka and no Flower here.

A round's sum is to the server what a cohort's gradient is to the learner, and goes the same way:
noise, step, ledger, gate (`models/learning/rounds.py`). The ledger is one of its own, named
ADAPTER.federated, in the learner's database: devices' owners have a budget of their own. The
weights are those of the live version, whoever released it, and what this ledger learned since.

Everything in here belongs to one thread: the ledger's database allows no other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from agents.learning.adapter_learning import lora_shape
from agents.learning.paths import gate_set_path, learning_folder, ledger_path, versions_folder
from agents.learning.promise import open_promise
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import Node
from agents.settings import LearnSettings
from models.engine.load import load
from models.federation.layout import unflatten
from models.learning.adapter_files import artifact_bytes
from models.learning.cohort_gradient import Contribution
from models.learning.examples import Cohort, TrainingExample
from models.learning.gate import Gate, LiveVersion, read_questions
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import new_adapter
from models.learning.optimizers import OptimizerSettings
from models.learning.rounds import Rounds
from models.privacy.ledger import Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.randomness import NoiseKey
from schemas.errors import DataInvalid

# The server's step along the mean delta; with these, that of the papers (Reddi et al. 2021).
_STEPS: Final = {
    "fedavg": OptimizerSettings("sgd", 1.0, beta=0.0),
    "fedprox": OptimizerSettings("sgd", 1.0, beta=0.0),
    "fedavgm": OptimizerSettings("sgd", 0.3, beta=0.9),
    "fedadam": OptimizerSettings("adam", 1e-3, beta=0.9, beta_square=0.99),
}
# What may not change while a ledger lives; the rest may, from round to round.
_KEPT: Final = {
    *("mechanism", "epsilon", "delta", "rounds_max", "participations_max", "separation_min"),
    *("devices", "norm_max", "strategy"),
}


class Federation:
    """Federated rounds of one adapter. `live` gives the version that devices begin with.

    Raises LedgerBroken where the ledger began with other settings.
    """

    def __init__(
        self,
        settings: FederateSettings,
        learn: LearnSettings,
        model: str,
        live: Callable[[], LiveVersion | None],
    ) -> None:
        questions = read_questions(gate_set_path(learn))
        loaded = load(model, learn.cache_dir, learn.device, learn.dtype)
        self.name = f"{learn.adapter}.federated"
        self._live = live
        self.store = LedgerStore(ledger_path(learn))
        key = NoiseKey.open(learning_folder(learn) / f"{self.name}.noise-key")
        self.shape = lora_shape(learn)
        adapter = new_adapter(loaded.model, self.shape)
        promised = settings.model_dump(include=_KEPT) | {
            "origin": "federated",
            "teaches": learn.adapter,
            "model": model,
            "rank": learn.rank,
            "targets": learn.targets,
            "server_learning_rate": _step(settings).learning_rate,
        }
        self.opening = open_promise(
            self.store, self.name, settings, settings.devices, key, adapter, promised
        )
        shapes = shapes_of(adapter)
        self._learner = Learner(
            loaded,
            LearnerSettings(
                self.shape,
                _step(settings),
                settings.devices,
                settings.norm_max,
                tokens_max=learn.tokens_max,
            ),
            open_mechanism(self.opening.plan, shapes, key),
            adapter,
        )
        self._gate = Gate(self._learner, questions, learn.gate_tolerance)
        self.rounds = Rounds(self.store, self.opening, self._learner, versions_folder(learn), model)

    @property
    def spent(self) -> bool:
        """Whether the plan allows no further round."""
        return self.rounds.number >= self.opening.plan.rounds_max

    def rounds_done(self) -> list[Round]:
        """The ledger's rounds."""
        return self.store.rounds(self.name)

    def begin(self, file: Path) -> str:
        """Writes the weights that devices start from; returns the version that they are of.

        Raises DataInvalid where the live version cannot be read or is of another rank.
        """
        live = self._adopt()
        file.write_bytes(artifact_bytes(self._learner.adapter))
        return live.model_version

    def choose(self, nodes: Iterable[Node]) -> dict[int, str]:
        """Who takes part of those that are online: owners by node id, one device of each.

        Owners that were in too many rounds, or in one too recently, are left out. More than are
        needed are drawn by lot; no privacy is claimed for it, as who is online is no chance.
        """
        number, participation = self.rounds.number, self.rounds.participation
        of_owner = {
            node.owner: node.node_id
            for node in nodes
            if node.online and participation.admits(node.owner, number)
        }
        owners = list(of_owner)
        secrets.SystemRandom().shuffle(owners)
        return {of_owner[owner]: owner for owner in owners[: self.opening.cohort_size]}

    def finish(
        self, total: NDArray[np.float64], digests: dict[str, str], offsets: dict[str, int]
    ) -> Round:
        """Enters a round's sum: noise, step, gate, ledger, in `Rounds.finish`'s order.

        `digests` are those of the deltas, by owner. A version that went live meanwhile is taken in
        first, so that the round's step is added to it and does not undo it. Raises BudgetSpent,
        Fenced, LedgerBroken, DataInvalid; the round is unspent then.
        """
        live = self._adopt()
        cohort = _cohort(self.rounds.number, digests)
        like = {name: t.cpu().numpy() for name, t in self._learner.adapter.items()}
        # Where the devices moved to is downhill: the gradient's opposite.
        gradient = {n: torch.from_numpy(-part) for n, part in unflatten(total, like).items()}
        step = Contribution(gradient, 0.0, [])
        found, _ = self.rounds.finish(
            cohort,
            offsets,
            lambda candidate: self._gate.judge(candidate, live),
            [step],
            live.model_version,
        )
        self.rounds.participation.record(found.users, found.number)
        return found

    def close(self) -> None:
        """Closes the ledger."""
        self._learner.close()
        self.store.close()

    def _adopt(self) -> LiveVersion:
        live = self._live()
        if live is None:
            raise DataInvalid("The live version cannot be read.", "See the agent's log.")
        if not live.adapter:
            return live
        if live.shape != self.shape or live.adapter.keys() != self._learner.adapter.keys():
            raise DataInvalid(
                f"The live version {live.model_version} has rank {live.shape.rank} on "
                f"{', '.join(live.shape.targets)}; federated rounds have rank {self.shape.rank} on "
                f"{', '.join(self.shape.targets)}.",
                "Set HEADWATER_LEARN_RANK and _TARGETS to those of what is live.",
            )
        self._learner.adopt(live.adapter)
        return live


def _cohort(number: int, digests: dict[str, str]) -> Cohort:
    """The owners of a round. A delta is named by its round too: it counts once, wherever it is."""
    return Cohort(
        number,
        {
            owner: [
                TrainingExample(example_id=f"{number}/{owner}/{sha256}", user=owner, messages=())
            ]
            for owner, sha256 in digests.items()
        },
    )


def _step(settings: FederateSettings) -> OptimizerSettings:
    step = _STEPS[settings.strategy]
    rate = settings.server_learning_rate or step.learning_rate
    return OptimizerSettings(step.kind, rate, step.beta, step.beta_square)
