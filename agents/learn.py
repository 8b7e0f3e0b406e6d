"""examples (or verdicts) → model-updates: a new version of an adapter for each cohort of users.

The ledger's database says where reading goes on, not a consumer group: offsets, privacy spent and
weights change together (`models/privacy/ledger_store.py` gives the order of a round). In here:
1. publish what the ledger has released and not published,
2. read examples from the ledger's offsets on, until one completes a cohort,
3. do its round in a thread; the gate decides whether it is released; go on at 1.
Where the guard decides what is learned from, examples are read from its verdicts instead.
While `controls` says that the adapter is paused, no example is taken (`controls`).
After the last round of the plan one event says so. Serving goes on, and so does this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import torch

from agents.adapting.settings import AdaptSettings, guards_learning
from agents.learning.adapter_learning import Learning, model_name
from agents.learning.controls import LearningSwitch
from agents.learning.live_version import LiveUpdate, read_live
from agents.learning.releases import (
    begun_record,
    ended_record,
    progressive_record,
    release_update,
    round_record,
    update_record,
)
from agents.learning.taken_examples import read_example, starts
from agents.runtime.dead_letters import bury
from agents.runtime.freshness import FeedbackWaiting
from agents.runtime.standalone import run
from agents.runtime.tracing import Attributes, make_tracing
from agents.settings import GenerateSettings, LearnSettings, WorkerSettings
from models.artifacts import sha256_of_config, stored
from models.background import be_nice
from models.learning.gate import LiveVersion
from models.privacy.ledger import Round
from schemas import headers
from schemas.clock import now_ms
from schemas.errors import EventInvalid
from schemas.events import ModelUpdate
from schemas.topics import EXAMPLES, VERDICTS
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings, load
from streams.spans import traceparent

T = TypeVar("T")
# As many as OpenTelemetry keeps of one span.
_LINKS_MAX: Final = 128

log = logging.getLogger("headwater.learn")


class Learn:
    """The state of one learn worker. Run one for an adapter: a second is refused at its round."""

    def __init__(
        self, kafka: KafkaSettings, settings: LearnSettings, model: str, guarded: bool = False
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._model = model
        self._guarded = guarded
        self._topic = VERDICTS if guarded else EXAMPLES
        self._producer = Producer(kafka)
        self._tracing = make_tracing("learn")
        # Of the examples of the open cohort: what an update comes of.
        self._traces: deque[str] = deque(maxlen=_LINKS_MAX)
        self._live = LiveUpdate(kafka, settings.adapter)
        self._switch = LearningSwitch(kafka, settings.adapter)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-learn")
        self._examples: Follower | None = None
        self._waiting = FeedbackWaiting()
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Learn until the plan is done, then do nothing for ever."""
        await self._live.open()
        await self._switch.open()
        learning = await self._in_thread(
            lambda: Learning(self._settings, self._model, self._read_live, self._guarded)
        )
        self._learning: Learning = learning
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live.follow())
            tasks.create_task(self._switch.follow())
            await self._producer.send(begun_record(learning.opening, now_ms()))
            await self._publish()
            await self._tell_last()
            self._examples = Follower(
                self._kafka, self._topic, starts(self._topic, learning.rounds.offsets)
            )
            await self._examples.open()
            self.ready.set()
            while not learning.spent:
                for record in await self._examples.batch():
                    await self._switch.running.wait()
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
        await self._switch.close()
        await self._producer.close()
        await self._tracing.close()

    async def _take(self, record: Record) -> None:
        try:
            example = read_example(self._topic, record.value)
            if example is None:
                return
            source = f"{self._topic.name}/{record.partition}"
            self._waiting.add(example.example_id, record.timestamp_ms)
            found = await self._in_thread(self._learning.add, example, source, record.offset + 1)
        except EventInvalid as error:
            # Read again after a restart, it is buried again, under the same id.
            await bury(self._producer, record, "learn", error)
            return
        trace = headers.header(record.headers, "traceparent")
        if trace is not None and self._tracing.on:
            self._traces.append(trace)
        if found is not None:
            log.info("round %d: %s, epsilon %s", found.number, found.evaluation, found.epsilon)
            await self._tell(found, trace)
            await self._producer.send(round_record(self._learning.opening, found))
            for wait in self._waiting.told(found.model_version, found.released):
                await self._producer.send(wait)
            if told := self._learning.progressive:
                await self._producer.send(progressive_record(self._learning.opening, found, told))

    async def _tell(self, found: Round, trace: str | None) -> None:
        """Publishes a round within its span: in the trace of the example that completed the cohort,
        with links to those of the others."""
        told: Attributes = {
            "headwater.adapter": self._settings.adapter,
            "headwater.model_version": found.model_version,
            "headwater.released": str(found.released).lower(),
        }
        name = f"update {self._settings.adapter}"
        links = [other for other in self._traces if other != trace]
        span = self._tracing.start(name, trace, attributes=told, links=links)
        self._traces.clear()
        try:
            await self._publish(traceparent(span))
        finally:
            span.end()

    async def _publish(self, trace: str | None = None) -> None:
        for update in await self._in_thread(self._unpublished):
            await self._producer.send(update_record(update, trace))
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
                stored(folder, self._settings.artifacts),
                sha256_of_config(folder),
            )
            for release in releases
            for folder in [
                learning.rounds.folder(release.record.model_version, release.record.context)
            ]
        ]

    async def _end(self) -> None:
        rounds = await self._in_thread(self._learning.store.rounds, self._settings.adapter)
        await self._producer.send(ended_record(self._learning.opening, rounds[-1]))
        log.info("all %d rounds of the privacy plan are done; learning ends", len(rounds))

    def _read_live(self) -> LiveVersion | None:
        return read_live(self._live.update, self._settings.cache_dir / "gate")

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def main() -> None:
    """Run the learn worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(LearnSettings)
    be_nice(settings.nice)
    torch.set_num_threads(settings.threads)
    guarded = guards_learning(load(AdaptSettings), settings)
    learn = Learn(kafka, settings, model_name(settings, load(GenerateSettings)), guarded)
    run(worker, learn.work, learn.ready.wait, learn.close)


if __name__ == "__main__":
    main()
