"""The command line of one operator and the devices of several owners, as they type."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 90


@dataclass(frozen=True)
class Terminal:
    """Commands with the settings of one operator, and what those in the background print."""

    folder: Path
    env: dict[str, str]

    def headwater(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    @contextmanager
    def beside(self, name: str, *arguments: str) -> Iterator[Path]:
        """A command that runs until Ctrl-C; gives the file that it prints to."""
        log = self.folder / f"{name}.out"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", *arguments],
                env=self.env,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                yield log
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(30) in (0, 130)

    def online(self) -> list[str]:
        lines = self.headwater("edge", "list", "--json").splitlines()
        return [n["name"] for n in map(json.loads, lines) if n["status"] == "online"]


def until(true: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)
