"""analytics → figures for Prometheus, and drifts → what the rules make of them.

No consumer group: a monitor reads everything, and its start reads back what was usual. For each
statistic, in the order in which windows ended:
1. show its figures,
2. feed the detectors of its version and signal,
3. ask the rules about each drift that the topic does not hold yet,
4. write the drift and the records of its actions in one transaction.
A monitor killed before 4 finds the drift again and goes on at 3; killed after it, it reads that
the drift is known. A newer monitor fences an older one, which from then on only shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from agents.monitor.board import Board
from agents.monitor.drift.acts import records_of
from agents.monitor.drift.drifts import Drift, Drifts, Observed, observed
from agents.monitor.drift.known import KnownDrifts
from agents.monitor.drift.rules import Judge
from agents.monitor.events import EventFigures
from agents.monitor.figures import LASTING, show_statistic
from agents.monitor.lag import LagReader
from agents.monitor.settings import MonitorSettings
from agents.runtime.metrics import MetricsPage
from agents.runtime.standalone import run
from agents.settings import LearnedSettings, WorkerSettings
from schemas import codec
from schemas.clock import now_ms
from schemas.errors import EventInvalid, Fenced, HeadwaterError
from schemas.events import Statistic
from schemas.topics import (
    ANALYTICS,
    CONTROLS,
    DEAD_LETTERS,
    FEDERATED_ROUNDS,
    MODEL_UPDATES,
)
from streams.fenced_writer import FencedWriter
from streams.follower import Follower
from streams.records import Record
from streams.settings import KafkaSettings, load

_SWEEP_S: Final = 15.0
_HOUR_MS: Final = 3_600_000

log = logging.getLogger("headwater.monitor")


class Monitor:
    """The state of the monitor."""

    def __init__(self, kafka: KafkaSettings, settings: MonitorSettings, adapter: str) -> None:
        """`adapter` is the one that learns. Raises SettingsInvalid for an address that cannot be
        had."""
        self.board = Board()
        self.events = EventFigures(self.board)
        self._kafka = kafka
        self._settings = settings
        self._drifts = Drifts(settings.watch, self.events.versions.parent_of)
        self._judge = Judge(settings.rules, adapter)
        self._known = KnownDrifts(round(1_000 * settings.cooldown_s))
        self._writer: FencedWriter | None = FencedWriter(kafka, "monitor")
        self._followed: dict[Follower, Callable[[Record], None]] = {
            Follower(kafka, MODEL_UPDATES, "earliest"): self.events.take_update,
            Follower(kafka, CONTROLS, "earliest"): self.events.take_control,
            Follower(kafka, FEDERATED_ROUNDS, "earliest"): self.events.take_round,
            Follower(kafka, DEAD_LETTERS, "latest"): self.events.take_dead_letter,
        }
        self._analytics = Follower(kafka, ANALYTICS, "earliest")
        self._page = MetricsPage(
            settings.metrics_host, settings.metrics_port, self.board.registry, agent="MONITOR"
        )
        self.ready = asyncio.Event()

    async def work(self) -> None:
        """Read back, then follow, for ever."""
        assert self._writer is not None
        await self._writer.open()
        for follower, take in self._followed.items():
            await follower.open()
            async for record in follower.until_caught_up():
                take(record)
        await self._analytics.open()
        await self._read_back()
        self.ready.set()
        async with asyncio.TaskGroup() as tasks:
            for follower, take in self._followed.items():
                tasks.create_task(follower.feed(take))
            tasks.create_task(self._follow_lag())
            tasks.create_task(self._sweep())
            while True:
                await self._take(await self._analytics.batch())

    async def close(self) -> None:
        """Leave the broker and free the port."""
        for follower in (*self._followed, self._analytics):
            await follower.close()
        await self._page.close()

    async def _read_back(self) -> None:
        """All that is known is noted before any detector is fed: partitions come in any order.

        Of old records only those matter whose figures hold until the next one.
        """
        since_ms = now_ms() - round(_HOUR_MS * self._settings.history_h)
        seen = []
        async for record in self._analytics.until_caught_up():
            lasting = (record.key_text or "").partition("/")[0] in LASTING
            if lasting or record.timestamp_ms >= since_ms:
                seen += [window for window in [self._show(record)] if window is not None]
        await self._watch(seen)
        log.info("read back %d windows", len(seen))

    async def _take(self, records: list[Record]) -> None:
        await self._watch([seen for record in records if (seen := self._show(record))])

    def _show(self, record: Record) -> Observed | None:
        statistic = _statistic(record)
        if statistic is None:
            return None
        # 1.
        show_statistic(self.board, statistic)
        self._known.note(statistic, self._judge)
        if self.ready.is_set():
            # What a counter counts twice would look like an increase.
            self.events.count_late(statistic)
        return observed(statistic)

    async def _watch(self, windows: list[Observed]) -> None:
        for seen in sorted(windows, key=lambda each: each.window.end_ms):
            # 2.
            for drift in self._drifts.add(seen):
                if not self._known.holds(drift):
                    await self._tell(drift)
        self.events.show_evidence(self._drifts.evidence())

    async def _tell(self, drift: Drift) -> None:
        # 3.
        versions, at_ms = self.events.versions, now_ms()
        verdict = self._judge.judge(drift, versions.live, at_ms)
        records, told = records_of(drift, verdict, versions, at_ms)
        # 4.
        if self._writer is not None:
            try:
                await self._writer.write(records)
            except Fenced as error:
                log.warning("another monitor acts from now on; this one only shows: %s", error)
                self._writer = None
        self._known.note(told, self._judge)
        log.warning("%s; done: %s", drift.said, told.labels["actions"] or verdict.reason)

    async def _follow_lag(self) -> None:
        reader = LagReader(self._kafka)
        while True:
            try:
                self.events.show_lag(*await asyncio.to_thread(reader.read))
            except HeadwaterError as error:
                # Figures that grow old say so; the river goes on without them.
                log.warning("consumer lag is not known: %s", error)
            await asyncio.sleep(self._settings.lag_interval_s)

    async def _sweep(self) -> None:
        while True:
            self.board.forget(now_ms() - round(1_000 * self._settings.stale_s))
            await asyncio.sleep(_SWEEP_S)


def _statistic(record: Record) -> Statistic | None:
    try:
        statistic: Statistic = codec.decode(ANALYTICS, record.value or b"")
    except EventInvalid as error:
        log.warning("a statistic is left out: %s", error)
        return None
    return statistic


def main() -> None:
    """Run the monitor until it is told to stop."""
    kafka, worker, settings = load(KafkaSettings), load(WorkerSettings), load(MonitorSettings)
    monitor = Monitor(kafka, settings, load(LearnedSettings).adapter)
    run(worker, monitor.work, monitor.ready.wait, monitor.close)


if __name__ == "__main__":
    main()
