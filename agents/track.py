"""analytics, model-updates, federated-rounds → MLflow and TensorBoard.

Reads what others have published and publishes nothing: whatever becomes of it, learning and serving
do not notice. It keeps no offsets. At every start it reads the topics from their beginning, and
writes what the store does not have; runs and versions are found again by their names. So a killed
worker has lost nothing, and a store that was thrown away is made anew, as far back as the topics
go. What a store cannot take now is tried again for ever; what it refuses is left out and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from agents.learning.model_change import read_update
from agents.runtime.standalone import run
from agents.settings import WorkerSettings
from agents.tracking.points import STATISTICS, Point, round_point, statistic_point
from agents.tracking.settings import TrackSettings
from agents.tracking.sinks import Sinks, refused
from models.background import be_nice
from schemas import codec
from schemas.errors import EventInvalid, SettingsInvalid
from schemas.events import ModelUpdate
from schemas.topics import ANALYTICS, FEDERATED_ROUNDS, MODEL_UPDATES, Topic
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings, load

T = TypeVar("T")
_WAIT_S_MAX: Final = 30.0

log = logging.getLogger("headwater.track")


class Track:
    """The state of one track worker. Run one for a store: two would begin each run twice."""

    def __init__(self, kafka: KafkaSettings, settings: TrackSettings) -> None:
        self._settings = settings
        self._followers = {
            topic: Follower(kafka, topic, "earliest")
            for topic in (ANALYTICS, MODEL_UPDATES, FEDERATED_ROUNDS)
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-track")
        self._sinks: Sinks | None = None
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Write what comes, for ever."""
        for follower in self._followers.values():
            await follower.open()
        # Before the store is there: nobody waits for it.
        self.ready.set()
        sinks = await self._opened()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(sinks, ANALYTICS, statistic_point))
            tasks.create_task(self._follow(sinks, FEDERATED_ROUNDS, round_point))
            tasks.create_task(self._follow_updates(sinks))

    async def close(self) -> None:
        """Stop reading, once what is being written is written."""
        for follower in self._followers.values():
            await follower.close()
        if self._sinks is not None:
            await self._in_thread(self._sinks.close)
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _opened(self) -> Sinks:
        self._sinks = await self._steadily(lambda: Sinks(self._settings))
        if self._sinks is None:
            raise SettingsInvalid(
                f"MLflow refuses {self._settings.store_uri} or its experiment.",
                "The line above says why; see HEADWATER_TRACK_MLFLOW_URI and _EXPERIMENT.",
            )
        return self._sinks

    async def _follow(
        self, sinks: Sinks, topic: Topic, point_of: Callable[[Any], Point | None]
    ) -> None:
        while True:
            for record in await self._followers[topic].batch():
                event = _decoded(topic, record)
                if event is not None and (point := point_of(event)) is not None:
                    await self._steadily(partial(sinks.write, point))

    async def _follow_updates(self, sinks: Sinks) -> None:
        """Only what is newest is live; before the topic's end nobody knows what that is."""
        follower = self._followers[MODEL_UPDATES]
        live: dict[str, str] = {}
        while True:
            for record in await follower.batch():
                update: ModelUpdate | None = _decoded(MODEL_UPDATES, record)
                if update is None:
                    continue
                await self._steadily(partial(sinks.release, update))
                live[update.adapter] = update.model_version
            if follower.caught_up:
                for adapter, version in live.items():
                    await self._steadily(partial(sinks.make_live, adapter, version))
                live.clear()

    async def _steadily(self, work: Callable[[], T]) -> T | None:
        """Tries until the store takes it; None where it refuses it for good."""
        wait_s = 1.0
        while True:
            try:
                return await self._in_thread(work)
            except Exception as error:
                # A store has many errors of its own, and none of them may end the river.
                if refused(error):
                    log.error("left out, for the store refuses it: %s", error)
                    return None
                log.warning("tried again in %g s: %s: %s", wait_s, type(error).__name__, error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_S_MAX)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _decoded(topic: Topic, record: Record) -> Any:
    """The event, or None for what is none; others say so, and bury it."""
    if topic is ANALYTICS and (record.key_text or "").partition("/")[0] not in STATISTICS:
        # Most statistics are not ours: not worth decoding.
        return None
    try:
        if topic is MODEL_UPDATES:
            return read_update(record)
        return codec.decode(topic, record.value or b"")
    except EventInvalid as error:
        log.warning("%s at %d/%d left out: %s", topic.name, record.partition, record.offset, error)
        return None


def main() -> None:
    """Run the track worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(TrackSettings)
    if not settings.on:
        raise SettingsInvalid(
            "There is nothing to track with: it is switched off, or not installed.",
            "Install the extra `tracking`; see HEADWATER_TRACK_MLFLOW and _TENSORBOARD.",
        )
    be_nice(settings.nice)
    track = Track(kafka, settings)
    run(worker, track.work, track.ready.wait, track.close)


if __name__ == "__main__":
    main()
