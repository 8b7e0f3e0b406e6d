"""A SuperLink with its gate and real devices, all on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agents.edge.keys import make_key
from agents.edge.store import ExampleStore
from agents.rounds.superlink import CA_FILE, SuperLink
from infra.federation import KEY_FILE, Door, device_parts, serving_parts
from infra.part import Part
from infra.ports import free_ports
from infra.tls import own_certificates
from models.learning.examples import TrainingExample

_ONLINE_DEADLINE_S = 60.0
_POLL_S = 0.2


@dataclass(frozen=True)
class LocalFleet:
    """`parts` are for a Supervisor; devices are to be admitted once the SuperLink is up."""

    parts: list[Part]
    superlink: str
    superlink_ca: Path
    gate: str
    root_certificates: Path
    devices: list[Path]

    def admit(self) -> dict[str, int]:
        """Admits every device; node ids by owner, who is called as the device's folder."""
        link = self.open()
        try:
            keys = {home.name: (home / KEY_FILE).with_suffix(".pub") for home in self.devices}
            return {owner: link.admit(key, owner, "phone") for owner, key in keys.items()}
        finally:
            link.close()

    async def until_online(self, count: int) -> None:
        """Waits until so many devices are there. Raises TimeoutError after a minute."""
        link = self.open()
        try:
            async with asyncio.timeout(_ONLINE_DEADLINE_S):
                while True:
                    nodes = await asyncio.to_thread(link.nodes)
                    if sum(node.online for node in nodes) >= count:
                        return
                    await asyncio.sleep(_POLL_S)
        finally:
            link.close()

    def open(self) -> SuperLink:
        """The operator's side; to be closed."""
        return SuperLink(self.superlink, self.superlink_ca)


def local_fleet(
    folder: Path, homes: Sequence[Path], env: Mapping[str, str], through: int | None = None
) -> LocalFleet:
    """Parts of a server and of a device for each of `homes`, which has its examples already.

    `env` goes to the devices, which connect to the port `through` where it is given, instead of the
    gate's. Keep `folder` short: sockets lie in the homes.
    """
    superlink_port, gate_port, *runtime_ports = free_ports(2 + len(homes))
    own = own_certificates(folder / "gate", ["127.0.0.1"])
    door = Door("127.0.0.1", gate_port, own.certificate, own.key)
    parts = serving_parts(folder / "superlink", superlink_port, door)
    gate = f"127.0.0.1:{gate_port}"
    for number, (home, port) in enumerate(zip(homes, runtime_ports, strict=True)):
        make_key(home / KEY_FILE)
        reach = gate if through is None else f"127.0.0.1:{through}"
        for part in device_parts(home, reach, own.authority, port):
            after = tuple(f"{name}-{number}" for name in part.after) or ("fleet-gate",)
            named = replace(part, name=f"{part.name}-{number}", after=after)
            parts.append(replace(named, env={**part.env, **env}))
    return LocalFleet(
        parts,
        f"127.0.0.1:{superlink_port}",
        folder / "superlink" / CA_FILE,
        gate,
        own.authority,
        list(homes),
    )


def fill_store(home: Path, examples: Iterable[TrainingExample]) -> None:
    """Gives a device its examples."""
    home.mkdir(parents=True, mode=0o700, exist_ok=True)
    store = ExampleStore(home)
    try:
        for example in examples:
            store.add(example)
    finally:
        store.close()
