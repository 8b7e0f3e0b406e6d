"""Running an agent that reads by offsets of its own: no consumer group, so no Faust."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from agents.runtime.ready_file import HEARTBEAT_S, touch_ready_file
from agents.runtime.worker import log
from agents.settings import WorkerSettings
from schemas.errors import HeadwaterError


def run(
    settings: WorkerSettings,
    work: Callable[[], Awaitable[None]],
    ready: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Run until SIGINT or SIGTERM; ends the process with status 1 when `work` fails.

    `ready` returns once the agent can do its work; `close` is awaited at the end.
    """
    logging.basicConfig(
        stream=sys.stdout,
        level=settings.log_level.upper(),
        format="[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s",
    )
    sys.exit(asyncio.run(_run(work, ready, close)))


async def _run(
    work: Callable[[], Awaitable[None]],
    ready: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[None]],
) -> int:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    tasks = [asyncio.ensure_future(step) for step in (work(), _announce(ready))]
    stop = asyncio.create_task(told.wait())
    await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
    failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in (*tasks, stop):
        task.cancel()
    await asyncio.gather(*tasks, stop, return_exceptions=True)
    await close()
    for error in filter(None, failed):
        _tell(error)
    return 1 if any(failed) else 0


async def _announce(ready: Callable[[], Awaitable[object]]) -> None:
    await ready()
    log.info("ready")
    while True:
        touch_ready_file()
        await asyncio.sleep(HEARTBEAT_S)


def _tell(error: BaseException) -> None:
    """An error of ours says all there is to know; a foreign one is for a programmer."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            _tell(part)
        return
    foreign = None if isinstance(error, HeadwaterError) else error
    log.critical("the worker cannot go on: %s", error, exc_info=foreign)
