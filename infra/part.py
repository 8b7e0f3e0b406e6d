"""One supervised process: how it starts, when it is ready, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.lifeline import Lifeline, signal_group
from infra.log_files import last_lines
from schemas.errors import WorkerFailed

DISK_FREE_BYTES_MIN = 1024**2
READY_POLL_INTERVAL_S = 0.05


@dataclass(frozen=True)
class Part:
    """What the supervisor needs to know about one process that it keeps running.

    A part is ready when `ready` says so or, without it, when the part has made the file that
    HEADWATER_READY_FILE names. Parts in `after` must be ready before this one starts.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # added to the supervisor's own
    ready: Callable[[], Awaitable[bool]] | None = None
    after: tuple[str, ...] = ()
    restart: bool = True  # False: it may end with status 0, and stays down
    needed: bool = True  # False: the others go on without it once it is given up
    ready_deadline_s: float = 60.0
    grace_s: float = 10.0  # from SIGTERM to SIGKILL
    remedy: Callable[[str], str] | None = None  # from the end of its log


class RunningPart:
    """A process of a part, in a process group of its own."""

    def __init__(
        self, part: Part, process: Process, lifeline: Lifeline, log: Path, ready_file: Path
    ) -> None:
        self.part = part
        self.log = log
        self.group = process.pid  # the leader of a new session leads its group too
        self._process = process
        self._lifeline = lifeline
        self._ready_file = ready_file

    @classmethod
    async def start(cls, part: Part, data_dir: Path, lifeline: Lifeline) -> RunningPart:
        """Start a part; its log goes to `data_dir`/logs, its ready file to `data_dir`/run."""
        log = data_dir / "logs" / f"{part.name}.log"
        ready_file = data_dir / "run" / f"{part.name}.ready"
        for file in (log, ready_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        ready_file.unlink(missing_ok=True)
        env = os.environ | part.env | {"HEADWATER_READY_FILE": str(ready_file)}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *lifeline.command(part.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=env,
                pass_fds=(lifeline.pipe,),
                start_new_session=True,
            )
        return cls(part, process, lifeline, log, ready_file)

    async def wait_ready(self) -> str | None:
        """Return None once the part is ready, or the reason why it is not going to be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.part.ready_deadline_s):
                while self._process.returncode is None:
                    if await self._is_ready():
                        return None
                    await asyncio.sleep(READY_POLL_INTERVAL_S)
                if self._process.returncode == 0 and not self.part.restart:
                    return None
                return f"ended with status {self._process.returncode} before it was ready"
        return f"was not ready within {self.part.ready_deadline_s:g} s"

    async def wait(self) -> int:
        """Wait for the part's own process, then end what it left running; gives its status.

        A negative status is the number of the signal that killed it.
        """
        status = await self._process.wait()
        self.kill()
        self._lifeline.forget(self.group)
        return status

    async def stop(self) -> None:
        """Ask the part to end, and kill it and all its children after its grace."""
        if self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.part.grace_s)
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """End the part and all its children at once."""
        signal_group(self.group, signal.SIGKILL)

    def failure(self, what: str) -> WorkerFailed:
        """Say what happened to the part, with the last lines of its log and what may help."""
        lines = last_lines(self.log) or "nothing"
        remedy = self.part.remedy(lines) if self.part.remedy else f"Its whole log is {self.log}."
        if shutil.disk_usage(self.log.parent).free < DISK_FREE_BYTES_MIN:
            # Then nothing could be said, either.
            remedy = "The disk is full: free some space, or move HEADWATER_DATA_DIR."
        return WorkerFailed(f"{self.part.name} {what}. It said last:\n{lines}\n", remedy)

    async def _is_ready(self) -> bool:
        if self.part.ready is None:
            return self._ready_file.exists()
        return await self.part.ready()
