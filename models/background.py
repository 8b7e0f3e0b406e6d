"""Threads whose work may wait for that of others."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

_NICE: Final = 10
# How much longer than it computed a thread rests, and how long at most.
_REST: Final = 4.0
_REST_S_MAX: Final = 0.05

Breathe = Callable[[], None]


def yield_to_others() -> None:
    """This thread computes when others leave time: on Linux each has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


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
