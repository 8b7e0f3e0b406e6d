"""A version made again from the examples that its ledger names, at the offsets that it kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from agents.learning.adapter_learning import lora_shape, model_name
from agents.learning.parts import open_learner
from agents.learning.paths import learning_folder, ledger_path, versions_folder
from agents.learning.promise import known_settings
from agents.settings import GenerateSettings, LearnSettings
from infra.learned_examples import read_cohorts
from infra.privacy_report import read_spent
from models.engine.load import load
from models.learning.adapter_files import read_adapter, write_adapter
from models.learning.adapter_layout import WEIGHTS_FILE
from models.learning.examples import Cohort
from models.learning.lora import new_adapter
from models.learning.replay import Adapter, replay
from models.privacy.ledger import Opening, Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.randomness import NoiseKey
from schemas.errors import DataInvalid, ModelUnavailable
from streams.settings import KafkaSettings
from streams.settings import load as load_settings

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was done again; the sha256 is the ledger's, or there would be no result."""

    model_version: str
    adapter: str
    rounds: int
    users: int
    examples: int
    artifact_sha256: str
    seconds: float
    folder: str | None = None


class Replay:
    """One version of the ledger's. Reads ledger and topic, and writes to neither."""

    def __init__(self, settings: LearnSettings, version: str) -> None:
        """Finds the version. Raises ModelUnavailable where the ledger has none of that name,
        LedgerBroken where it does not hold, DataInvalid for what cannot be made again."""
        path = ledger_path(settings)
        if not path.exists():
            raise ModelUnavailable(
                f"There is no ledger at {path}.", "HEADWATER_LEARN_FOLDER names another folder."
            )
        self._version = version
        self._store = LedgerStore(path, read_only=True)
        try:
            self.opening, self.rounds = self._found()
        except BaseException:
            self._store.close()
            raise
        # As they were when the adapter began, whatever they are now.
        kept = known_settings(self.opening).items()
        self._settings = settings.model_copy(
            update={name: value for name, value in kept if name in LearnSettings.model_fields}
        )
        self._used = self._store.examples(self.opening.adapter, len(self.rounds))

    def close(self) -> None:
        self._store.close()

    async def cohorts(self, kafka: KafkaSettings) -> list[Cohort]:
        """The cohort of each round, from the topic. Raises DataInvalid where it has lost some."""
        guarded = bool(self.opening.settings.get("guarded"))
        return await read_cohorts(kafka, self.rounds, self._used, guarded)

    def run(self, cohorts: list[Cohort], report: Report, folder: Path | None = None) -> Replayed:
        """Does all rounds up to the version again; `folder` keeps the adapter, in PEFT's layout.

        Raises DataInvalid where the noise key is gone or anything comes out otherwise.
        """
        begun = time.monotonic()
        settings, shape = self._settings, lora_shape(self._settings)
        key = self._key()
        model = model_name(settings, load_settings(GenerateSettings))
        loaded = load(model, settings.cache_dir, settings.device, settings.dtype)
        adapter = new_adapter(loaded.model, shape)
        learner = open_learner(loaded, settings, shape, self.opening, key, adapter)
        try:
            with _threads(settings.threads):
                replay(learner, self.rounds, cohorts, self._other, report)
            if folder is not None:
                write_adapter(folder, learner.adapter, shape, model)
        finally:
            learner.close()
        return Replayed(
            model_version=self._version,
            adapter=self.opening.adapter,
            rounds=len(self.rounds),
            users=len({user for record in self.rounds for user in record.users}),
            examples=len(self._used),
            artifact_sha256=self.rounds[-1].artifact_sha256,
            seconds=round(time.monotonic() - begun, 2),
            folder=None if folder is None else str(folder),
        )

    def _found(self) -> tuple[Opening, list[Round]]:
        """The opening, and the rounds up to the version."""
        names = []
        for adapter in self._store.adapters():
            opening = read_spent(self._store, adapter).opening
            rounds = self._store.rounds(adapter)
            for record in rounds:
                names.append(record.model_version)
                if record.model_version == self._version:
                    _check_own(opening)
                    return opening, rounds[: record.number + 1]
        raise ModelUnavailable(
            f"The ledger has no version {self._version!r}; it has {', '.join(names) or 'none'}.",
            "Name one of its own. What documents teach is in no ledger: `headwater study rebuild` "
            "studies all passages anew.",
        )

    def _key(self) -> NoiseKey:
        path = learning_folder(self._settings) / f"{self.opening.adapter}.noise-key"
        # Opening one that is not there would make one.
        if not path.exists():
            raise DataInvalid(
                f"The noise key {path} is gone.",
                "Restore it from its backup: without it no version can be made again.",
            )
        key = NoiseKey.open(path)
        if key.commitment != self.opening.key_commitment:
            raise DataInvalid(
                f"{path} is not the noise key that the adapter began with.",
                "Restore that one from its backup.",
            )
        return key

    def _other(self, version: str) -> Adapter:
        """A version of another ledger of this learner: a federated one."""
        for adapter in self._store.adapters():
            for record in self._store.rounds(adapter):
                name = f"{version}-{record.context[:16]}"
                folder = versions_folder(self._settings) / name
                if record.model_version == version and folder.exists():
                    weights = (folder / WEIGHTS_FILE).read_bytes()
                    if hashlib.sha256(weights).hexdigest() == record.artifact_sha256:
                        return read_adapter(folder)
        raise DataInvalid(
            f"A round went on from {version}, whose weights are not in this folder any more.",
            "Restore them from a backup of HEADWATER_LEARN_FOLDER.",
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Other numbers of threads add up in another order, to other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_own(opening: Opening) -> None:
    if "teaches" in opening.settings:
        raise DataInvalid(
            f"{opening.adapter} was learned on devices, which keep their examples.",
            "Only versions of learn can be made again from the topic.",
        )
