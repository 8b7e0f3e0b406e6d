"""What a command that waits for ever owes to the pipe that it writes to."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """Within it, this task ends with BrokenPipeError as soon as nobody reads its output.

    A write would find out, but the next record may never come (`tail -f` does the same).
    """
    pipe = _output_pipe()
    if pipe is None:
        yield
        return
    loop, task, gone = asyncio.get_running_loop(), asyncio.current_task(), False

    def end() -> None:
        nonlocal gone
        gone = True
        loop.remove_reader(pipe)
        assert task is not None
        task.cancel()

    # A pipe's end for writing becomes "readable" when its other end is closed, and only then.
    loop.add_reader(pipe, end)
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
        raise
    finally:
        loop.remove_reader(pipe)


def _output_pipe() -> int | None:
    try:
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        # A test's or a library's stand-in for standard output.
        return None
