"""Versions of adapters: what `model-updates` still has, and what the learner's ledger knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agents.learning.model_change import read_update
from agents.learning.paths import ledger_path, versions_folder
from agents.learning.releases import release_update
from agents.settings import LearnSettings
from models.artifacts import sha256_of_config
from models.engine.protocol import BASE_VERSION
from models.privacy.ledger import Round, verify
from models.privacy.ledger_schema import Release
from models.privacy.ledger_store import LedgerStore
from schemas.errors import EventInvalid, ModelUnavailable
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.settings import KafkaSettings
from streams.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Version:
    """A version and whether it serves; `in_ledger` where the learner's ledger has it, and
    `released` where the gate, or a person, let it go live."""

    update: ModelUpdate
    live: bool
    in_ledger: bool
    released: bool


class ModelHistory:
    """All versions that can be found, oldest first."""

    def __init__(self, updates: list[ModelUpdate], learned: dict[str, tuple[ModelUpdate, bool]]):
        live = {update.adapter: update.model_version for update in updates}
        found = {name: update for name, (update, _) in learned.items()}
        # The topic's record counts: the ledger knows no version that was learned elsewhere.
        found |= {u.model_version: u for u in updates if u.origin != "rollback"}
        found |= {u.model_version: u for u in updates if u.model_version not in found}
        published = {update.model_version for update in updates}
        self._live = live
        self.versions = [
            Version(
                update,
                live.get(update.adapter) == name,
                name in learned,
                name in published or (name in learned and learned[name][1]),
            )
            for name, update in found.items()
        ]
        self.versions.sort(key=lambda version: version.update.published_ms)

    def live(self, adapter: str) -> str:
        """The version that serves an adapter."""
        return self._live.get(adapter, BASE_VERSION)

    def named(self, name: str, adapter: str) -> ModelUpdate:
        """A version, or the base model. Raises ModelUnavailable with those that there are."""
        if name == BASE_VERSION:
            return ModelUpdate(adapter, BASE_VERSION, "base", 0)
        for version in self.versions:
            if version.update.model_version == name:
                return version.update
        names = ", ".join(version.update.model_version for version in self.versions) or "none"
        raise ModelUnavailable(
            f"There is no version {name!r}.", f"The versions: {names}, {BASE_VERSION}."
        )


async def read_history(kafka: KafkaSettings, settings: LearnSettings) -> ModelHistory:
    """Both sources. Raises LedgerBroken where the ledger does not hold."""
    async with Subscription(kafka, MODEL_UPDATES, since="earliest") as subscription:
        records = [record async for record in subscription.present()]
    updates: list[ModelUpdate] = []
    for record in records:
        try:
            updates.append(read_update(record))
        except EventInvalid:
            # Those who serve leave it out as well, and bury it.
            continue
    return ModelHistory(updates, read_learned(settings))


def read_learned(settings: LearnSettings) -> dict[str, tuple[ModelUpdate, bool]]:
    """Every round of the ledger as the version it made, and whether it was released.

    Raises LedgerBroken where the ledger does not hold.
    """
    path = ledger_path(settings)
    if not path.exists():
        return {}
    store = LedgerStore(path)
    try:
        return {
            name: found
            for adapter in store.adapters()
            for name, found in _versions(store, adapter, settings)
        }
    finally:
        store.close()


def _versions(
    store: LedgerStore, adapter: str, settings: LearnSettings
) -> Iterator[tuple[str, tuple[ModelUpdate, bool]]]:
    entries = list(store.entries(adapter))
    opening = verify(entries).opening
    rounds = [msgspec.json.decode(entry.body, type=Round) for entry in entries[1:]]
    for record, entry in zip(rounds, entries[1:], strict=True):
        folder = versions_folder(settings) / f"{record.model_version}-{record.context[:16]}"
        uri, config = _uri(settings, folder, record), sha256_of_config(folder)
        update = release_update(opening, rounds, Release(record, entry.digest), uri, config)
        yield record.model_version, (update, record.released)


def _uri(settings: LearnSettings, folder: Path, record: Round) -> str:
    published = settings.artifacts is not None and record.released
    return (
        f"{(settings.artifacts or '').rstrip('/')}/{folder.name}" if published else folder.as_uri()
    )
