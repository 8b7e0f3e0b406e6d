"""What a record of `model-updates` asks for, and in which order one adapter's records are tried."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agents.runtime.identity import event_id
from models.engine.protocol import BASE_VERSION
from schemas import codec, limits
from schemas.errors import ArtifactUnavailable, EventInvalid, GenerationFailed, ModelBusy
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.records import Record

# Records of one adapter that are newer than the live one; what is older than these is forgotten.
CANDIDATES_MAX: Final = 100
_PAUSE_S_FIRST: Final = 0.1
_PAUSE_S_MAX: Final = 30.0

log = logging.getLogger("headwater.generate")


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """From now on `adapter` is to serve `version`: BASE_VERSION, or the adapter at `uri`."""

    adapter: str
    version: str
    record: Record
    uri: str = ""
    sha256: str = ""
    config_sha256: str | None = None


def decode_swap(record: Record) -> Swap:
    """What a record asks for; a tombstone, like an update without an artifact, for the base model.

    Raises EventInvalid.
    """
    if record.value is None:
        if not 0 < len(record.key_text or "") <= limits.NAME_CHARS_MAX:
            raise EventInvalid("A tombstone names no adapter.", "Its key is the adapter's name.")
        return Swap(record.key_text or "", BASE_VERSION, record)
    update: ModelUpdate = codec.decode(MODEL_UPDATES, record.value)
    event_id(record, update.adapter)
    if (update.artifact_uri is None) != (update.artifact_sha256 is None):
        raise EventInvalid(
            "An update has an artifact_uri without an artifact_sha256, or the other way round.",
            "Give both, or neither for the base model.",
        )
    if update.origin == "base" or not update.artifact_uri or update.artifact_sha256 is None:
        return Swap(update.adapter, BASE_VERSION, record)
    if update.model_version == BASE_VERSION:
        raise EventInvalid(
            f"The version {BASE_VERSION!r} is the model without an adapter.",
            "Give the version another name, or leave the artifact out.",
        )
    return Swap(
        update.adapter,
        update.model_version,
        record,
        update.artifact_uri,
        update.artifact_sha256,
        update.artifact_config_sha256,
    )


class Lane:
    """Brings one adapter to its newest version that can be served.

    The newest record is tried first. One that is refused makes way for the next older one, down to
    the live version; one that cannot be had now is tried again, with pauses that grow. `bring`
    loads and swaps, unless `wanted` names another one meanwhile, and says whether it did.
    `settled` is told of each record once it will not be tried any more: refused, or with None.
    """

    def __init__(
        self,
        bring: Callable[[Swap], Awaitable[bool]],
        settled: Callable[[Swap, Exception | None], None],
    ) -> None:
        self._bring = bring
        self._settled = settled
        # Oldest first.
        self._candidates: list[Swap] = []
        self._changed = asyncio.Event()
        self._pause_s = _PAUSE_S_FIRST
        self.live: Swap | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def wanted(self) -> Swap | None:
        """What is to be live next."""
        return self._candidates[-1] if self._candidates else None

    def offer(self, swap: Swap) -> None:
        """Takes the adapter's next record."""
        self._candidates.append(swap)
        self._pause_s = _PAUSE_S_FIRST
        self.idle.clear()
        self._changed.set()
        if len(self._candidates) > CANDIDATES_MAX:
            self._settled(self._candidates.pop(0), None)

    async def run(self) -> None:
        """For ever. Raises GenerationFailed when the engine has ended."""
        while True:
            self._changed.clear()
            swap = self.wanted
            if swap is None:
                self.idle.set()
                await self._changed.wait()
                continue
            try:
                if await self._bring(swap):
                    self._go_live(swap)
            except (ArtifactUnavailable, ModelBusy) as error:
                log.warning("%s waits for %s: %s", swap.adapter, swap.version, error)
                await self._pause()
            except GenerationFailed:
                raise
            except Exception as error:
                log.warning("%s refuses %s: %s", swap.adapter, swap.version, error)
                self._candidates.remove(swap)
                self._settled(swap, error)

    def _go_live(self, swap: Swap) -> None:
        self.live = swap
        self._pause_s = _PAUSE_S_FIRST
        reached = self._candidates.index(swap) + 1
        done, self._candidates = self._candidates[:reached], self._candidates[reached:]
        for each in done:
            self._settled(each, None)

    async def _pause(self) -> None:
        """Until the next try; something newer is tried at once."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._changed.wait()
