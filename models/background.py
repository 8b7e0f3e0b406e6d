"""Threads and processes whose work may wait for that of others."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

_NICE: Final = 10
_AUTOGROUP: Final = Path("/proc/self/autogroup")
# How much longer than it computed a thread rests, and how long at most.
_REST: Final = 4.0
_REST_S_MAX: Final = 0.05

Breathe = Callable[[], None]


def yield_to_others() -> None:
    """This thread computes when others leave time: on Linux each has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def be_nice(niceness: int) -> None:
    """This process computes when others leave time, from 0 (not at all nice) to 19.

    Linux may schedule each session as a group (sched(7), autogroup), and niceness counts within a
    group only: a process that leads a session gives its group the same.
    """
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            _AUTOGROUP.write_text(str(niceness))


def breathing(busy: Callable[[], bool]) -> Breathe:
    """To be called between pieces of a thread's work: while others are `busy` it rests, so that
    what it takes from them is spread thinly."""
    since_s = time.thread_time()

    def breathe() -> None:
        nonlocal since_s
        if busy():
            time.sleep(min(_REST * (time.thread_time() - since_s), _REST_S_MAX))
        since_s = time.thread_time()

    return breathe
