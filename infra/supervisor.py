"""One parent for every part of a river: starts, watches, restarts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from infra.lifeline import Lifeline
from infra.log_files import limit_size
from infra.part import Part, RunningPart
from infra.start_order import start_order
from schemas.errors import WorkerFailed

QUICK_DEATH_S = 30.0  # a part that lived longer starts with a clean record
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
LOG_CHECK_INTERVAL_S = 2.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


@dataclass(frozen=True)
class Notice:
    """Something happened to a part; `detail` is for people."""

    part: str
    what: Literal["started", "ready", "died", "left down", "finished", "stopped"]
    detail: str = ""


class Supervisor:
    """Runs parts in the order that they need each other, and leaves no process behind.

    `data_dir` holds their logs; `on_notice` is called with each change. A part that dies is
    started again, `deaths_max` times in quick succession at most. Then it is given up: one that is
    needed ends them all, another one is left down.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        data_dir: Path,
        on_notice: Callable[[Notice], None] = lambda _notice: None,
        deaths_max: int = 5,
    ) -> None:
        self._levels = start_order(parts)
        self._data_dir = data_dir
        self._on_notice = on_notice
        self._deaths_max = deaths_max
        self._running: dict[str, RunningPart] = {}
        self._ready = {part.name: asyncio.Event() for part in parts}
        self._keepers: list[asyncio.Task[None]] = []

    async def run(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Start every part, do `work` while they run, and stop them in reverse order.

        Gives what `work` gives, or None when SIGINT, SIGTERM or SIGHUP ended it; a second signal
        kills the parts at once. Raises WorkerFailed when a needed part does not start or keeps
        dying.
        """
        # Settled by the first signal, or by the first part that is given up.
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lifeline = Lifeline()
        try:
            with self._signals_handled():
                try:
                    return await self._start_and_do(work)
                finally:
                    await self._stop()
        finally:
            self._lifeline.close()

    def pids(self) -> dict[str, int]:
        """Give the process id of each part that was started, by name."""
        return {name: running.group for name, running in self._running.items()}

    async def _start_and_do(self, work: Callable[[], Awaitable[T]]) -> T | None:
        doing = asyncio.create_task(self._start_then(work))
        keeping_logs = asyncio.create_task(self._limit_logs())
        first: set[asyncio.Future[Any]] = {doing, self._ended}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            return self._ended.result() if self._ended.done() else doing.result()
        finally:
            for task in (tasks := [doing, keeping_logs, *self._keepers]):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_then(self, work: Callable[[], Awaitable[T]]) -> T:
        for level in self._levels:
            for part in level:
                keeper = asyncio.create_task(self._keep(part))
                keeper.add_done_callback(partial(self._give_up, part))
                self._keepers.append(keeper)
            for part in level:
                await self._ready[part.name].wait()
        return await work()

    async def _keep(self, part: Part) -> None:
        """Start a part, and start it again whenever it dies; raises WorkerFailed to give it up."""
        clock = asyncio.get_running_loop().time
        running = await self._start(part)
        # A failure at the very first start is not one that time will mend.
        if problem := await self._wait_ready(running):
            failure = running.failure(problem)
            running.kill()
            await running.wait()
            raise failure
        deaths, ready_at_s = 0, clock()
        while (status := await running.wait()) != 0 or part.restart:
            deaths = deaths + 1 if clock() - ready_at_s < QUICK_DEATH_S else 1
            if not part.restart or deaths > self._deaths_max:
                raise running.failure(f"died with status {status}, {deaths} times in a row")
            delay_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (deaths - 1))
            detail = f"with status {status}; starts again in {delay_s:g} s"
            self._on_notice(Notice(part.name, "died", detail))
            await asyncio.sleep(delay_s)
            running = await self._start(part)
            if await self._wait_ready(running):
                running.kill()
            ready_at_s = clock()
        self._on_notice(Notice(part.name, "finished"))

    async def _start(self, part: Part) -> RunningPart:
        running = await RunningPart.start(part, self._data_dir, self._lifeline)
        self._running[part.name] = running
        self._on_notice(Notice(part.name, "started", f"process {running.group}"))
        return running

    async def _wait_ready(self, running: RunningPart) -> str | None:
        problem = await running.wait_ready()
        if problem is None:
            self._ready[running.part.name].set()
            self._on_notice(Notice(running.part.name, "ready"))
        return problem

    def _give_up(self, part: Part, keeper: asyncio.Task[None]) -> None:
        if keeper.cancelled() or not (failure := keeper.exception()):
            return
        if not part.needed and isinstance(failure, WorkerFailed):
            why = f"{failure.message.rstrip()}\n{failure.remedy}"
            self._on_notice(Notice(part.name, "left down", why))
            self._running.pop(part.name, None)
            # Nobody waits for it any more.
            self._ready[part.name].set()
        elif not self._ended.done():
            self._ended.set_exception(failure)

    async def _stop(self) -> None:
        for level in reversed(self._levels):
            await asyncio.gather(*(self._stop_part(part.name) for part in level))

    async def _stop_part(self, name: str) -> None:
        if running := self._running.get(name):
            await running.stop()
            self._on_notice(Notice(name, "stopped"))

    async def _limit_logs(self) -> None:
        while True:
            for running in self._running.values():
                limit_size(running.log)
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)

    @contextlib.contextmanager
    def _signals_handled(self) -> Iterator[None]:
        # Python lets only the main thread handle signals; elsewhere the caller ends `work`.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        else:
            for running in self._running.values():
                running.kill()
