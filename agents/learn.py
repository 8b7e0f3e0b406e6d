"""examples → model-updates: a new version of an adapter for each cohort of users.

The ledger's database says where reading goes on, not a consumer group: offsets, privacy spent and
weights change together (`models/privacy/ledger_store.py` gives the order of a round). In here:
1. publish what the ledger has released and not published,
2. read examples from the ledger's offsets on, until one completes a cohort,
3. do its round in a thread; the gate decides whether it is released; go on at 1.
After the last round of the plan one event says so. Serving goes on, and so does this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from agents.dead_letters import bury
from agents.learning import Learning, model_name
from agents.live_version import LiveUpdate, read_live
from agents.releases import (
    begun_record,
    ended_record,
    release_update,
    round_record,
    update_record,
)
from agents.settings import GenerateSettings, LearnSettings, WorkerSettings
from agents.standalone import run
from models.artifacts import store
from models.learning.examples import TrainingExample
from models.learning.gate import LiveVersion
from schemas import codec
from schemas.clock import now_ms
from schemas.errors import EventInvalid
from schemas.events import Example, ModelUpdate
from schemas.topics import EXAMPLES
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

T = TypeVar("T")

log = logging.getLogger("headwater.learn")


class Learn:
    """The state of one learn worker. Run one for an adapter: a second is refused at its round."""

    def __init__(self, kafka: KafkaSettings, settings: LearnSettings, model: str) -> None:
        self._kafka = kafka
        self._settings = settings
        self._model = model
        self._producer = Producer(kafka)
        self._live = LiveUpdate(kafka, settings.adapter)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-learn")
        self._examples: Follower | None = None
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Learn until the plan is done, then do nothing for ever."""
        await self._live.open()
        learning = await self._in_thread(
            lambda: Learning(self._settings, self._model, self._read_live)
        )
        self._learning: Learning = learning
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live.follow())
            await self._producer.send(begun_record(learning.opening, now_ms()))
            await self._publish()
            await self._tell_last()
            self._examples = Follower(self._kafka, EXAMPLES, starts(learning.rounds.offsets))
            await self._examples.open()
            self.ready.set()
            while not learning.spent:
                for record in await self._examples.batch():
                    await self._take(record)
            await self._end()

    async def close(self) -> None:
        """Leave the broker and close the ledger, once a round in progress is done."""
        if self._examples is not None:
            await self._examples.close()
        if self.ready.is_set():
            await self._in_thread(self._learning.close)
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self._live.close()
        await self._producer.close()

    async def _take(self, record: Record) -> None:
        try:
            example: Example = codec.decode(EXAMPLES, record.value or b"")
            source = f"{EXAMPLES.name}/{record.partition}"
            found = await self._in_thread(
                self._learning.add, training_example(example), source, record.offset + 1
            )
        except EventInvalid as error:
            # Read again after a restart, it is buried again, under the same id.
            await bury(self._producer, record, "learn", error)
            return
        if found is not None:
            log.info("round %d: %s, epsilon %s", found.number, found.evaluation, found.epsilon)
            await self._publish()
            await self._producer.send(round_record(self._learning.opening, found))

    async def _publish(self) -> None:
        for update in await self._in_thread(self._unpublished):
            await self._producer.send(update_record(update))
            # Before the topic brings it back: the next candidate is compared with this one.
            self._live.update = update
            await self._in_thread(
                self._learning.store.mark_published, update.adapter, update.model_version
            )
            log.info("released %s", update.model_version)

    async def _tell_last(self) -> None:
        """Of the last round once more: a killed predecessor may not have come to it."""
        rounds = await self._in_thread(self._learning.store.rounds, self._settings.adapter)
        for found in rounds[-1:]:
            await self._producer.send(round_record(self._learning.opening, found))

    def _unpublished(self) -> list[ModelUpdate]:
        learning, adapter = self._learning, self._settings.adapter
        releases = learning.store.unpublished(adapter)
        rounds = learning.store.rounds(adapter) if releases else []
        return [
            release_update(
                learning.opening,
                rounds,
                release,
                self._stored(learning.rounds.folder(found.model_version, found.context)),
            )
            for release in releases
            for found in [release.record]
        ]

    def _stored(self, folder: Path) -> str:
        """The URI of a version, where others can read it."""
        base = self._settings.artifacts
        return folder.as_uri() if base is None else store(folder, base, folder.name)

    async def _end(self) -> None:
        rounds = await self._in_thread(self._learning.store.rounds, self._settings.adapter)
        await self._producer.send(ended_record(self._learning.opening, rounds[-1]))
        log.info("all %d rounds of the privacy plan are done; learning ends", len(rounds))

    def _read_live(self) -> LiveVersion | None:
        return read_live(self._live.update, self._settings.cache_dir / "gate")

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def training_example(example: Example) -> TrainingExample:
    """An example as the learner takes it."""
    return TrainingExample(
        example_id=example.example_id,
        user=example.user,
        messages=tuple({"role": m.role, "content": m.content} for m in example.messages),
        completion=example.completion,
        correction=example.correction,
        rating=example.reward,
    )


def starts(offsets: dict[str, int]) -> dict[int, int]:
    """Where reading goes on, by partition; those not named are read from their beginning."""
    return {int(source.rpartition("/")[2]): offset for source, offset in offsets.items()}


def main() -> None:
    """Run the learn worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(LearnSettings)
    os.nice(settings.nice)
    torch.set_num_threads(settings.threads)
    learn = Learn(kafka, settings, model_name(settings, load(GenerateSettings)))
    run(worker, learn.work, learn.ready.wait, learn.close)


if __name__ == "__main__":
    main()
