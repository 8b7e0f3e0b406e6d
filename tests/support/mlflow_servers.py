"""MLflow's own server over a store, as `mlflow ui` and `mlflow server` start it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psutil

from infra.ports import free_ports

START_S_MAX = 60


@contextmanager
def mlflow_at(folder: Path, command: str, *arguments: str) -> Iterator[str]:
    """The address of `mlflow COMMAND …` once it answers; its log is in `folder`."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    own = ["--port", str(port), "--workers", "1"]
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlflow")), command, *own, *arguments],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        _until_it_answers(f"{address}/health", server, folder / "mlflow.log")
        yield address
    finally:
        # It has workers of its own, some in sessions of theirs.
        family = [*psutil.Process(server.pid).children(recursive=True), server]
        for process in family:
            process.kill()
        server.wait()


def artifact(address: str, run_id: str, path: str) -> bytes:
    """One file of a run, as the server's own pages fetch it.

    MLflow's client would leave threads behind.
    """
    asked = f"{address}/get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}"
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return bytes(answer.read())


def _until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-4_000:])
