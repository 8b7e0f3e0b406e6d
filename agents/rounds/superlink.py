"""The operator's side of a SuperLink: devices admitted and removed, runs started and watched.

`flwr run` and `flwr supernode` are these same calls; each would start a Python process of a second
or more. Flower 1.41 asks no credentials for them: the SuperLink listens on loopback, and devices
come through the gate (`infra/fleet_gate.py`), which lets no such call pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, cast

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from agents.rounds.settings import FederateSettings
from schemas.errors import DataInvalid, FederationUnreachable

APP: Path = Path(__file__).parents[1] / "federated"
# In the SuperLink's folder: what signed its certificate.
CA_FILE: Final = "ca.pem"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """A device as the SuperLink knows it; `name` is OWNER/DEVICE, as it was admitted."""

    node_id: int
    name: str
    status: str
    online: bool

    @property
    def owner(self) -> str:
        """The privacy unit: all devices of one owner count as one."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """`ended` says how, once it has: completed, failed or stopped."""

    ended: Literal["", "completed", "failed", "stopped"]
    details: str


class SuperLink:
    """Calls to one SuperLink at `address` (host:port). Each raises FederationUnreachable."""

    def __init__(self, address: str, root_certificates: Path | None = None) -> None:
        self._address = address
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=root_certificates is None,
            root_certificates=None if root_certificates is None else root_certificates.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli")],
        )

    def close(self) -> None:
        self._client.close()

    def nodes(self) -> list[Node]:
        """The admitted devices."""
        found = self._call(lambda: self._client.ListNodes(ListNodesRequest()))
        return [
            Node(info.node_id, info.name, info.status, info.status == "online")
            for info in found.nodes_info
            if info.status != "unregistered"
        ]

    def admit(self, public_key: Path, owner: str, name: str) -> int:
        """Lets a device take part; returns its node id. Raises DataInvalid for no such key."""
        if "/" in owner:
            raise DataInvalid(f"{owner!r} is no owner's name.", "Leave the slash out.")
        key = _public_key(public_key)
        request = RegisterNodeRequest(public_key=key, name=f"{owner}/{name}")
        return int(self._call(lambda: self._client.RegisterNode(request)).node_id)

    def remove(self, node_id: int) -> None:
        """Refuses a device from now on."""
        request = UnregisterNodeRequest(node_id=node_id)
        self._call(lambda: self._client.UnregisterNode(request))

    def start(self, config: Mapping[str, str | int | float | bool], app: Path = APP) -> int:
        """Starts a round of the app in `agents/federated`, or another; returns the run's id."""
        fab = build_fab_from_disk(app)
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(fab).hexdigest(), fab, {})),
            override_config=user_config_to_proto(dict(config)),
            federation="",
        )
        return int(self._call(lambda: self._client.StartRun(request)).run_id)

    def status(self, run_id: int) -> RunStatus:
        """Where a run stands."""
        found = self._call(lambda: self._client.ListRuns(ListRunsRequest(run_id=run_id)))
        status = found.run_dict[run_id].status
        ended = status.sub_status if status.status == "finished" else ""
        return RunStatus(cast(Literal["", "completed", "failed", "stopped"], ended), status.details)

    def running(self) -> list[int]:
        """Runs that have not ended."""
        found = self._call(lambda: self._client.ListRuns(ListRunsRequest()))
        return [n for n, run in found.run_dict.items() if run.status.status != "finished"]

    def stop(self, run_id: int) -> None:
        """Ends a run that takes too long."""
        self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (httpx.HTTPError, FlowerError, OSError, ValueError) as error:
            raise FederationUnreachable(
                f"The SuperLink at {self._address} does not do that: {error}.",
                "Is it up (`headwater edge serve`)? Its log says more.",
            ) from error


def open_superlink(settings: FederateSettings) -> SuperLink:
    """The operator's own, with the certificate that it made for itself."""
    authority = settings.superlink_folder.expanduser() / CA_FILE
    return SuperLink(settings.superlink, authority if authority.exists() else None)


def _public_key(path: Path) -> bytes:
    """An elliptic-curve key in OpenSSH's format, as the SuperLink keeps it."""
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise DataInvalid(
            f"{path} holds no public key: {error}.", "`headwater edge key` makes one."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DataInvalid(f"{path} holds another kind of key.", "`headwater edge key` makes one.")
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
