"""A real SuperLink behind its gate, and real devices with the tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from certificates import Authority

from agents.edge.keys import make_key
from agents.edge.store import ExampleStore
from agents.superlink import CA_FILE, SuperLink
from infra.federation import KEY_FILE, Door, device_parts, serving_parts
from infra.part import Part
from infra.ports import free_ports
from models.learning.examples import TrainingExample


@dataclass(frozen=True)
class Fleet:
    """`parts` are for a Supervisor; devices are to be admitted once the SuperLink is up."""

    parts: list[Part]
    superlink: str
    superlink_ca: Path
    gate: str
    root_certificates: Path
    devices: list[Path]

    def admit(self) -> dict[str, int]:
        """Admits every device; node ids by owner."""
        link = SuperLink(self.superlink, self.superlink_ca)
        try:
            keys = {home.name: (home / KEY_FILE).with_suffix(".pub") for home in self.devices}
            return {owner: link.admit(key, owner, "phone") for owner, key in keys.items()}
        finally:
            link.close()


def make_fleet(
    folder: Path, model: Path, devices: int, env: Mapping[str, str] | None = None
) -> Fleet:
    """Parts of a server and of `devices` devices, each with two examples of its own."""
    superlink_port, gate_port, *runtime_ports = free_ports(2 + devices)
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder)
    identity = authority.issue("gate")
    door = Door("127.0.0.1", gate_port, identity.certificate, identity.key)
    parts = serving_parts(folder / "superlink", superlink_port, door)
    homes = [folder / f"owner{number}" for number in range(devices)]
    settings = {
        "HEADWATER_EDGE_MODEL": str(model),
        "HEADWATER_EDGE_DTYPE": "float32",
        "HEADWATER_EDGE_DEVICE": "cpu",
        **(env or {}),
    }
    for number, (home, port) in enumerate(zip(homes, runtime_ports, strict=True)):
        make_key(home / KEY_FILE)
        add_examples(home, number)
        gate = f"127.0.0.1:{gate_port}"
        for part in device_parts(home, gate, authority.certificate, port):
            after = tuple(f"{name}-{number}" for name in part.after) or ("fleet-gate",)
            named = replace(part, name=f"{part.name}-{number}", after=after)
            parts.append(replace(named, env={**part.env, **settings}))
    return Fleet(
        parts,
        f"127.0.0.1:{superlink_port}",
        folder / "superlink" / CA_FILE,
        f"127.0.0.1:{gate_port}",
        authority.certificate,
        homes,
    )


def add_examples(home: Path, number: int) -> None:
    """Two corrections that no other device has."""
    store = ExampleStore(home)
    try:
        for turn in range(2):
            question = f"What does owner {number} ask of river {turn}?"
            store.add(
                TrainingExample(
                    example_id="",
                    user="",
                    messages=({"role": "user", "content": question},),
                    correction=f"Nine metres, says {number}.",
                )
            )
    finally:
        store.close()


async def until_online(fleet: Fleet, count: int) -> None:
    """Waits until so many devices are there."""
    link = SuperLink(fleet.superlink, fleet.superlink_ca)
    try:
        async with asyncio.timeout(60):
            while True:
                nodes = await asyncio.to_thread(link.nodes)
                if sum(node.online for node in nodes) >= count:
                    return
                await asyncio.sleep(0.2)
    finally:
        link.close()
