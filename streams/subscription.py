"""Following a topic as events: of everybody or one conversation, from where one stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

from schemas import codec
from schemas.errors import EventInvalid, SettingsInvalid
from schemas.topics import Topic
from streams.bookmark import Bookmark
from streams.follower import Follower, Start
from streams.records import Record
from streams.settings import KafkaSettings

Since = Literal["earliest", "latest"]


class Subscription:
    """An asynchronous iterator over the events of one topic.

    `position` is a short text that a later subscription takes as `resume`. With a `name` the
    position is also kept in Kafka: the next subscription of that name goes on after the last event
    whose handling had ended (the iterator was asked for the next one).
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: Topic,
        conversation_id: str | None = None,
        since: Since = "latest",
        resume: str | None = None,
        name: str | None = None,
        partitions: list[int] | None = None,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._conversation_id = conversation_id
        self._since: Since = since
        self._resume = _parse(resume) if resume else None
        self._name = name
        self._partitions = partitions
        self._positions: dict[int, int] = {}
        self._follower: Follower | None = None
        self._stack = AsyncExitStack()
        self.skipped = 0

    @property
    def position(self) -> str:
        """Where to go on: the next offset of each partition, as JSON."""
        return json.dumps(self._positions)

    def position_after(self, record: Record) -> str:
        """The position of somebody who has handled everything up to this record."""
        return json.dumps(self._positions | {record.partition: record.offset + 1})

    def note(self, record: Record) -> None:
        """Take a record as handled although the iterator will not be asked for the next one."""
        self._positions[record.partition] = record.offset + 1

    async def open(self) -> None:
        """Fix where reading starts: what is published from now on will be seen. Optional."""
        if self._follower is None:
            self._follower = await self._stack.enter_async_context(self._following())

    async def close(self) -> None:
        """Keep the position of a named subscription, leave the broker."""
        await self._stack.aclose()
        self._follower = None

    async def __aenter__(self) -> Subscription:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Events in order within each partition; records that are no valid event are skipped."""
        async for record in self.records():
            event = self._event(record)
            if event is not None:
                yield event

    async def records(self) -> AsyncIterator[Record]:
        """Raw records of everybody, valid or not."""
        await self.open()
        assert self._follower is not None
        try:
            while True:
                for record in await self._follower.batch():
                    yield record
                    self.note(record)
                await self._keep()
        finally:
            await self.close()

    async def present(self) -> AsyncIterator[Record]:
        """Raw records up to the end of the topic; the iterator then ends."""
        await self.open()
        assert self._follower is not None
        async for record in self._follower.until_caught_up():
            yield record
            self.note(record)

    async def present_events(self) -> AsyncIterator[Any]:
        """Events up to the end of the topic; records that are no valid event are skipped."""
        async for record in self.present():
            event = self._event(record)
            if event is not None:
                yield event

    @asynccontextmanager
    async def _following(self) -> AsyncIterator[Follower]:
        start: Start = self._resume if self._resume is not None else self._since
        self._bookmark: Bookmark | None = None
        if self._name is not None:
            self._bookmark = Bookmark(self._settings, self._topic, self._name)
            kept = await asyncio.to_thread(self._bookmark.load, self._since)
            start = kept | (self._resume or {})
        follower = Follower(self._settings, self._topic, start, self._partitions)
        try:
            await follower.open()
            self._positions = dict(follower.positions)
            await self._keep()
            yield follower
            await self._keep()
        finally:
            await follower.close()
            if self._bookmark is not None:
                await asyncio.to_thread(self._bookmark.close)

    async def _keep(self) -> None:
        if self._bookmark is not None:
            await asyncio.to_thread(self._bookmark.save, dict(self._positions))

    def _event(self, record: Record) -> Any | None:
        if record.value is None:
            return None
        try:
            event = codec.decode(self._topic, record.value)
        except EventInvalid:
            self.skipped += 1
            return None
        wanted = self._conversation_id
        return event if wanted is None or _conversation(event) == wanted else None


def _conversation(event: Any) -> str | None:
    return getattr(event, "conversation_id", None) or getattr(
        getattr(event, "prompt", None), "conversation_id", None
    )


def _parse(position: str) -> dict[int, int]:
    try:
        return {int(partition): int(offset) for partition, offset in json.loads(position).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise SettingsInvalid(
            f"{position!r} is no position.", "Pass what `subscription.position` gave."
        ) from error
