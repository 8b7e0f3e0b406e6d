"""llama-cpp-python's server over the packaged model, in an environment of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from infra.ports import free_ports
from models.weights import packaged_gguf

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".headwater/llama-cpp/bin/python"
CONTEXT_TOKENS_MAX = 512
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class LlamaServer:
    """A server that runs."""

    url: str
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()


@contextmanager
def llama_server(folder: Path) -> Iterator[LlamaServer]:
    """One process, which answers one request at a time."""
    if not PYTHON.exists():
        pytest.skip("llama-cpp-python is not there: run `make llama-server`, which takes minutes")
    (port,) = free_ports(1)
    server = LlamaServer(f"http://127.0.0.1:{port}/v1", folder / "llama-server.log")
    options = {
        "model": packaged_gguf(),
        "model_alias": "smollm2",
        "n_ctx": CONTEXT_TOKENS_MAX,
        "port": port,
        "verbose": False,
        # By default a new request ends the one before it.
        "interrupt_requests": False,
    }
    command = [PYTHON, "-u", "-m", "llama_cpp.server"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with (
        server.log_file.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _await(server, process)
            yield server
        finally:
            process.kill()


def _await(server: LlamaServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            httpx.get(f"{server.url}/models").raise_for_status()
            return
        except httpx.HTTPError:
            assert process.poll() is None, server.log()
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)
