"""Flower's simulation as a process that stays: round after round, as it is asked over a socket.

The ServerApp and its checks are those of real rounds; devices are simulated by Flower on ray. The
simulation itself is Flower's `run_simulation`, which ends with its ServerApp: so the ServerApp here
waits for questions, one connection each, until one ends it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from agents.edge.settings import EdgeSettings
from agents.edge.wire import OK, receive, send
from agents.federated.server_app import run_once
from agents.rounds.superlink import APP
from agents.runtime.ready_file import touch_ready_file
from infra.federation import flower_env
from infra.fleet.simulated_client import simulated_client
from infra.part import Part
from schemas.errors import HeadwaterError, WorkerFailed
from streams.settings import load

_SOCKET: Final = "simulation.sock"
_END: Final = b"end"
_FAILED: Final = b"failed"
_STORE_BYTES: Final = 128 * 1024 * 1024


def simulation_part(folder: Path, homes: Path, devices: int, env: dict[str, str]) -> Part:
    """The process; `homes` has the stores, `env` the devices' settings."""
    command = [
        *(sys.executable, "-m", "infra.fleet.simulation", "--folder", str(folder)),
        *("--homes", str(homes), "--devices", str(devices)),
    ]
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Its workers are small: what fills the memory is something else, and it would kill them.
        "RAY_memory_monitor_refresh_ms": "0",
    }
    home = flower_env(folder / "flower")
    return Part("simulation", command, {**home, **quiet, **env}, restart=False, grace_s=2.0)


def simulated_round(folder: Path, config: dict[str, Any]) -> None:
    """Has the process do one round; its sum and outcome lie where `config` says.

    Raises WorkerFailed with the ServerApp's reason.
    """
    defaults = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    _ask(folder, msgspec.json.encode(defaults | config))


def end_simulation(folder: Path) -> None:
    """Tells the process to end, and ray's with it."""
    _ask(folder, _END)


def _ask(folder: Path, config: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(folder / _SOCKET))
        send(connection, config)
        status, said = receive(connection), receive(connection)
    if status != OK:
        raise WorkerFailed(said.decode(), "See the simulation's log.")


def _server(path: Path) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            touch_ready_file()
            while _answered(listener, grid):
                pass

    return app


def _answered(listener: socket.socket, grid: Grid) -> bool:
    """One question; False for the last."""
    connection, _ = listener.accept()
    with connection:
        asked = receive(connection)
        try:
            if asked != _END:
                run_once(grid, msgspec.json.decode(asked))
            send(connection, OK, b"done")
        except HeadwaterError as error:
            send(connection, _FAILED, str(error).encode())
    return asked != _END


def main() -> None:
    """Simulates until it is told to end."""
    # Imported late: it brings ray, an extra of its own.
    from flwr.simulation.run_simulation import run_simulation

    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--homes", required=True, type=Path)
    parser.add_argument("--devices", required=True, type=int)
    given = parser.parse_args()
    workers = os.cpu_count() or 1
    run_simulation(
        _server(given.folder / _SOCKET),
        simulated_client(given.homes, load(EdgeSettings)),
        given.devices,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": workers,
                "object_store_memory": _STORE_BYTES,
                "log_to_driver": False,
            },
        },
    )


if __name__ == "__main__":
    main()
