"""Which version of an adapter is live, as `model-updates` says."""

from __future__ import annotations

import logging
from pathlib import Path

from models.artifacts import fetch, prune
from models.learning.adapter_files import read_adapter
from models.learning.gate import LiveVersion
from models.learning.lora import LoraShape
from schemas import codec
from schemas.errors import EventInvalid, HeadwaterError
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings

log = logging.getLogger("headwater.learn")


class LiveUpdate:
    """Follows the newest record of one adapter; none means the base model."""

    def __init__(self, kafka: KafkaSettings, adapter: str) -> None:
        self._adapter = adapter.encode()
        self._follower = Follower(kafka, MODEL_UPDATES, "earliest")
        self.update: ModelUpdate | None = None

    async def open(self) -> None:
        """Return once the newest record is known."""
        await self._follower.catch_up(self._take)

    async def follow(self) -> None:
        """Keep up with the topic, for ever."""
        await self._follower.feed(self._take)

    async def close(self) -> None:
        """Stop reading."""
        await self._follower.close()

    def _take(self, record: Record) -> None:
        if record.key != self._adapter:
            return
        try:
            value = record.value
            self.update = None if value is None else codec.decode(MODEL_UPDATES, value)
        except EventInvalid as error:
            # Whoever serves leaves it out too.
            log.warning("update of %s left out: %s", record.key_text, error)


def read_live(update: ModelUpdate | None, cache: Path) -> LiveVersion | None:
    """The weights of what is live; None where they cannot be had. Blocks while they are fetched."""
    if update is None or update.artifact_uri is None or update.artifact_sha256 is None:
        version = "base" if update is None else update.model_version
        return LiveVersion(version, {}, LoraShape())
    try:
        folder = fetch(
            update.artifact_uri, update.artifact_sha256, cache, update.artifact_config_sha256
        )
        prune(cache, {folder})
        return LiveVersion(update.model_version, *read_adapter(folder), update.origin)
    except HeadwaterError as error:
        log.error("nothing is released while what is live cannot be read: %s", error)
        return None
