"""Whether an adapter learns: the topic `controls`, and who obeys it."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from schemas import codec, headers
from schemas.clock import now_ms
from schemas.errors import EventInvalid
from schemas.events import Control
from schemas.topics import CONTROLS
from streams.follower import Follower
from streams.producer import Outgoing
from streams.records import Record
from streams.settings import KafkaSettings

log = logging.getLogger("headwater.controls")


class LearningSwitch:
    """Follows the controls of one adapter: `running` is set while it learns."""

    def __init__(self, kafka: KafkaSettings, adapter: str) -> None:
        self._adapter = adapter
        self._follower = Follower(kafka, CONTROLS, "earliest")
        self.running = asyncio.Event()
        self.running.set()

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
        control = read_control(record)
        if control is None or control.adapter != self._adapter:
            return
        if control.learning == "paused":
            self.running.clear()
            log.info("learning is paused: %s", control.reason)
        elif not self.running.is_set():
            self.running.set()
            log.info("learning goes on: %s", control.reason)


def read_control(record: Record) -> Control | None:
    """What a record says; a tombstone says that its adapter learns, a malformed one nothing."""
    if record.value is None:
        return Control(record.key_text or "", "on", record.timestamp_ms)
    try:
        control: Control = codec.decode(CONTROLS, record.value)
    except EventInvalid as error:
        log.warning("control of %s left out: %s", record.key_text, error)
        return None
    return control


def control_record(
    adapter: str, learning: Literal["on", "paused"], reason: str, event_id: str, source: str
) -> Outgoing:
    """Pauses or resumes the learning of an adapter."""
    control = Control(adapter, learning, now_ms(), reason)
    made = headers.make_headers(CONTROLS, event_id, source)
    return Outgoing(CONTROLS, adapter, codec.checked(CONTROLS, control), made)
