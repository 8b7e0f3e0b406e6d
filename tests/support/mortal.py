"""A process that is forked, and killed at one boundary of its work after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType


class Reaper:
    """Kills this process when it has been called so often."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def __call__(self, *_: object) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def reap_fsyncs(boundary: Reaper) -> None:
    """Each fsync of this process has a boundary before and after it."""
    fsync = os.fsync

    def reaped(descriptor: int) -> None:
        boundary()
        fsync(descriptor)
        boundary()

    os.fsync = reaped


def lives(live: Callable[[Reaper], None], kills: int, stride: int) -> int:
    """Lives until `kills` died and one reached the end; returns how many died.

    Each is killed one boundary later than the one before, and after `stride` lives early again.
    """
    died = 0
    while True:
        boundary = Reaper(died % stride if died < kills else None)
        child = os.fork()
        if child == 0:
            try:
                live(boundary)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(1)
            return died
        died += 1


def deaths(script: ModuleType, *arguments: object, timeout_s: float) -> int:
    """How often a script of such lives died; it must come to its end."""
    done = subprocess.run(
        [sys.executable, str(script.__file__), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
