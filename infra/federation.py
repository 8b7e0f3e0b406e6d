"""The processes of federation: a SuperLink and its gate at the operator's, two on each device."""

from __future__ import annotations

import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from agents.edge.wire import SOCKET_FILE
from agents.rounds.settings import FederateSettings
from agents.rounds.superlink import CA_FILE
from infra.part import Part
from infra.paths import data_dir
from infra.tls import own_certificates
from streams.settings import load

_BIN = Path(sys.executable).parent
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_FILE = "device.key"


@dataclass(frozen=True)
class Door:
    """Where devices reach the SuperLink; without a certificate on loopback only."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Operator:
    """An operator's processes; devices connect to `gate`, and trust `authority` if it is ours."""

    parts: list[Part]
    folder: Path
    gate: str
    authority: Path | None


def operator_settings() -> FederateSettings:
    """The SuperLink's state is in the data folder, unless its own setting says otherwise."""
    settings = load(FederateSettings)
    if "superlink_folder" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"superlink_folder": data_dir() / "superlink"})


def operator(
    host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> Operator:
    """SuperLink and gate for devices that call this machine `host`; ours signs without a `key`."""
    settings = operator_settings()
    folder = settings.superlink_folder.expanduser().absolute()
    authority: Path | None = None
    if certificate is None or key is None:
        own = own_certificates(folder / "gate", [host])
        certificate, key, authority = own.certificate, own.key, own.authority
    listen = host if host in _LOOPBACK else "0.0.0.0"
    superlink_port = int(settings.superlink.rpartition(":")[2])
    parts = serving_parts(folder, superlink_port, Door(listen, port, certificate, key))
    return Operator(parts, folder, f"{host}:{port}", authority)


def serving_parts(folder: Path, port: int, door: Door) -> list[Part]:
    """The SuperLink on loopback at `port`, its state in `folder`, and the gate before it."""
    return [superlink_part(folder, port), gate_part(folder, port, door)]


def superlink_part(folder: Path, port: int) -> Part:
    """Nodes must have keys that were admitted; the state outlives the process."""
    own = own_certificates(folder, ["127.0.0.1", "localhost"])
    command = [
        *(str(_BIN / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-certfile", str(own.certificate), "--ssl-keyfile", str(own.key)),
        *("--ssl-ca-certfile", str(own.authority), "--enable-supernode-auth"),
        *("--database", str(folder / "superlink.db"), "--disable-runtime-dependency-installation"),
    ]

    trusted = ssl.create_default_context(cafile=own.authority)

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient(timeout=2.0, verify=trusted) as client:
                return (await client.get(f"https://127.0.0.1:{port}/health")).is_success
        except httpx.HTTPError:
            return False

    return Part("superlink", command, flower_env(folder / "flower"), ready=answers)


def gate_part(folder: Path, superlink_port: int, door: Door) -> Part:
    """The devices' door."""
    command = [
        *(sys.executable, "-m", "infra.fleet_gate", "--host", door.host, "--port", str(door.port)),
        *("--superlink", f"https://127.0.0.1:{superlink_port}"),
        *("--superlink-ca", str(folder / CA_FILE)),
    ]
    if door.certificate is not None and door.key is not None:
        command += ["--certificate", str(door.certificate), "--key", str(door.key)]
    return Part("fleet-gate", command, after=("superlink",))


def device_parts(
    folder: Path,
    superlink: str,
    root_certificates: Path | None,
    runtime_port: int,
    topic: str | None = None,
) -> list[Part]:
    """A device's trainer and SuperNode; settings of the trainer come from the environment.

    `runtime_port`, on loopback, is for the SuperNode and the ClientApps that it starts. With a
    `topic` a third process takes examples from there.
    """
    trainer_env = {"HEADWATER_EDGE_FOLDER": str(folder), "OMP_WAIT_POLICY": "passive"}
    secured = (
        ["--insecure"]
        if root_certificates is None
        else ["--root-certificates", str(root_certificates)]
    )
    node = [
        *(str(_BIN / "flower-supernode"), *secured, "--superlink", superlink),
        *("--auth-supernode-private-key", str(folder / KEY_FILE)),
        *("--port", str(runtime_port)),
        *("--node-config", f'trainer="{folder / SOCKET_FILE}"'),
    ]

    async def at_once() -> bool:
        # It waits for its SuperLink for as long as that takes: days, on a device that is offline.
        # So does the reader for its broker.
        return True

    reader = [sys.executable, "-m", "agents.edge.topic_reader", "--topic", topic or ""]
    readers = [Part("topic-reader", reader, trainer_env, ready=at_once)]
    return [
        *(readers if topic else []),
        Part(
            "trainer",
            [sys.executable, "-m", "agents.edge.trainer"],
            trainer_env,
            ready_deadline_s=300.0,
        ),
        Part("supernode", node, flower_env(folder / "flower"), ready=at_once, after=("trainer",)),
    ]


def flower_env(home: Path) -> dict[str, str]:
    """What Flower's processes need to stay offline and apart from each other."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # They start each other by name, and numpy's threads are of no use to them.
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
