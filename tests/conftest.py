"""Every test must leave nothing behind: no thread, no task, no process, no changed setting.

What fixtures of module or session scope started is there before the test and does not count.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import psutil
import pytest
import pytest_asyncio

# Threads and processes that were told to end are given so long to be gone.
GRACE_S = 3.0

T = TypeVar("T")


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves threads, processes or HEADWATER_* variables behind.

    It is set up first and torn down last, when the test's own fixtures and loop are closed.
    """
    settings, threads, processes = _settings(), set(_threads()), _processes()
    yield
    changed = _settings() ^ settings
    assert not changed, f"changed in the environment: {sorted(name for name, _ in changed)}"
    left_threads = _left(lambda: set(_threads()) - threads)
    assert not left_threads, f"threads left behind: {left_threads}"
    left_processes = _left(lambda: _processes() - processes)
    assert not left_processes, f"processes left behind: {left_processes}"


@pytest.fixture(autouse=True)
def no_tasks_left(request: pytest.FixtureRequest, no_leaks: None) -> None:
    """Fail an asynchronous test that leaves tasks behind for its loop to throw away."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("tasks_of_this_loop")


@pytest_asyncio.fixture
async def tasks_of_this_loop() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    assert not left, f"tasks left behind: {left}"


def _settings() -> set[tuple[str, str]]:
    return {item for item in os.environ.items() if item[0].startswith("HEADWATER_")}


def _threads() -> list[threading.Thread]:
    """Ours, and those for which the interpreter would wait at its end."""
    return [
        thread
        for thread in threading.enumerate()
        # `asyncio_N` belong to a loop, which joins them when it closes; it may outlive a test.
        if thread.name.startswith("headwater-")
        or not (thread.daemon or thread.name.startswith("asyncio_"))
    ]


def _processes() -> Counter[str]:
    """Children by command line: one that was killed and started again is the same one."""
    found: Counter[str] = Counter()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone meanwhile
            found[shlex.join(child.cmdline())] += 1
    return found


def _left(find: Callable[[], T]) -> T:
    deadline = time.monotonic() + GRACE_S
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
