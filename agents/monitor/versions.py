"""What is live, what was before it, and whether adapters learn: followed from the topics."""

from __future__ import annotations

import logging

from agents.learning.model_change import read_update
from models.engine.protocol import BASE_VERSION
from schemas.errors import EventInvalid
from schemas.events import ModelUpdate
from streams.records import Record

log = logging.getLogger("headwater.monitor")


class Versions:
    """All that `model-updates` still has."""

    def __init__(self) -> None:
        self.live: dict[str, ModelUpdate] = {}
        self._known: dict[str, ModelUpdate] = {}

    def take(self, record: Record) -> ModelUpdate | None:
        """The newest record of its adapter; None where it is malformed and changes nothing."""
        try:
            update = read_update(record)
        except EventInvalid as error:
            # Those who serve leave it out as well, and bury it.
            log.warning("update of %s left out: %s", record.key_text, error)
            return None
        self.live[update.adapter] = update
        # What a rollback says of itself is less than what was said at first.
        if update.origin != "rollback" or update.model_version not in self._known:
            self._known[update.model_version] = update
        return update

    def parent_of(self, version: str) -> str | None:
        """The name of the version before."""
        known = self._known.get(version)
        return known.parent_version if known is not None else None

    def parent(self, version: str, adapter: str) -> ModelUpdate | None:
        """The version before, or the base model; None where the topic does not have it any more."""
        name = self.parent_of(version)
        if name == BASE_VERSION:
            return ModelUpdate(adapter, BASE_VERSION, "base", 0)
        return self._known.get(name or "")
