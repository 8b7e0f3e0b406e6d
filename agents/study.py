"""passages → model-updates: the model's language follows the documents.

One file says where reading goes on, not a consumer group: offsets, weights and optimizer change
together (`models/studying/notes.py`). In here:
1. publish what was made and not published,
2. read passages from the file's offsets on; enough of them make a lesson, in a thread, and saved,
3. after some lessons, or in silence, the gate judges; what passes is saved as made; go on at 1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from agents.learning.live_version import LiveUpdate, read_live
from agents.runtime.standalone import run
from agents.settings import GenerateSettings, WorkerSettings
from agents.studying.opening import open_study
from agents.studying.records import judged_record, lesson_record, made_record, read_text
from agents.studying.settings import StudySettings
from models.artifacts import stored
from models.background import be_nice
from models.learning.gate import LiveVersion
from models.studying.study import Study
from schemas.errors import EventInvalid
from schemas.topics import PASSAGES
from streams.follower import Follower
from streams.producer import Producer
from streams.records import Record
from streams.settings import KafkaSettings, load

T = TypeVar("T")

log = logging.getLogger("headwater.study")


class StudyAgent:
    """The state of one study worker. Run one for an adapter: a second finds the folder taken."""

    def __init__(self, kafka: KafkaSettings, settings: StudySettings, model: str) -> None:
        self._kafka = kafka
        self._settings = settings
        self._model = model
        self._producer = Producer(kafka)
        self._live = LiveUpdate(kafka, settings.adapter)
        # Weights and their file belong to this thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headwater-study")
        self._passages: Follower | None = None
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Study for ever."""
        await self._live.open()
        live = self._live.update
        self._study: Study = await self._in_thread(
            open_study, self._settings, self._model, live.model_version if live else None
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live.follow())
            await self._publish()
            starts = {int(name): offset for name, offset in self._study.notes.offsets.items()}
            self._passages = Follower(self._kafka, PASSAGES, starts)
            await self._passages.open()
            self.ready.set()
            while True:
                await self._take(await self._batch(self._passages))

    async def close(self) -> None:
        """Leave the broker and give the folder free, once a lesson in progress is done."""
        if self._passages is not None:
            await self._passages.close()
        if hasattr(self, "_study"):
            await self._in_thread(self._study.close)
        self._thread.shutdown(wait=True, cancel_futures=True)
        await self._live.close()
        await self._producer.close()

    async def _batch(self, passages: Follower) -> list[Record]:
        """The next records; in silence the gate judges what no version has."""
        while True:
            try:
                async with asyncio.timeout(self._settings.idle_s):
                    return await passages.batch()
            except TimeoutError:
                if self._study.notes.lessons > self._study.notes.judged:
                    await self._judge()

    async def _take(self, records: list[Record]) -> None:
        forgotten = False
        for record in records:
            forgotten = self._read(record) or forgotten
            if self._study.due:
                await self._lesson()
                forgotten = False
        if forgotten:
            # A deleted text leaves the disk now, not with the next lesson.
            await self._in_thread(self._study.save)

    def _read(self, record: Record) -> bool:
        """Takes a record in; True where a text was deleted that the study kept."""
        study = self._study
        study.notes.offsets[str(record.partition)] = record.offset + 1
        if record.value is None:
            return study.forget(record.key_text or "")
        try:
            study.read(read_text(record))
        except EventInvalid as error:
            # retrieve buries it.
            log.warning("passage %s left out: %s", record.key_text, error)
        return False

    async def _lesson(self) -> None:
        loss = await self._in_thread(_lesson_saved, self._study)
        notes = self._study.notes
        log.info("lesson %d: loss %.4f on new passages before", notes.lessons, loss)
        await self._producer.send(lesson_record(self._settings.adapter, notes, loss))
        enough = notes.lessons - notes.judged >= self._settings.lessons_per_version
        # In a rebuild all that is there comes first.
        if enough and notes.rebuilt:
            await self._judge()

    async def _judge(self) -> None:
        judgement = await self._in_thread(self._study.release, self._read_live)
        log.info(
            "%s %s: %s",
            self._study.version,
            "passed" if judgement.released else "refused",
            judgement.evaluation,
        )
        await self._publish()
        await self._producer.send(judged_record(self._settings.adapter, self._study, judgement))

    async def _publish(self) -> None:
        made = self._study.notes.made
        if made is None:
            return
        uri = await self._in_thread(stored, Path(made.folder), self._settings.artifacts)
        update, record = made_record(self._settings.adapter, made, uri)
        await self._producer.send(record)
        # Before the topic brings it back: the next candidate is compared with this one.
        self._live.update = update
        await self._in_thread(self._study.published)
        log.info("released %s", made.version)

    def _read_live(self) -> LiveVersion | None:
        return read_live(self._live.update, self._settings.cache_dir / "study-gate")

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _lesson_saved(study: Study) -> float:
    loss = study.lesson()
    study.save()
    return loss


def main() -> None:
    """Run the study worker until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(StudySettings)
    be_nice(settings.nice)
    torch.set_num_threads(settings.threads)
    model = settings.model or load(GenerateSettings).model
    study = StudyAgent(kafka, settings, model)
    run(worker, study.work, study.ready.wait, study.close)


if __name__ == "__main__":
    main()
