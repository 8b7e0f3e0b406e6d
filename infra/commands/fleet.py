"""`headwater edge` at the operator's: the SuperLink with its gate, devices, and rounds."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.runtime.ready_file import HEARTBEAT_S, touch_ready_file
from infra.commands.edge import edge_app
from infra.commands.shell import AsJson, err, out, print_json, run
from schemas.errors import DataInvalid, SettingsInvalid
from streams.settings import load

if TYPE_CHECKING:
    from agents.rounds.superlink import SuperLink
    from infra.federation import Operator
    from infra.part import Part
    from infra.supervisor import Notice

# With these commands too.
__all__ = ["edge_app"]


@edge_app.command("serve")
def serve(
    host: Annotated[
        str, typer.Option(help="Name or address by which devices reach this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port for devices.")] = 9443,
    certificate: Annotated[Path | None, typer.Option(help="Its certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")] = None,
    agent: Annotated[
        bool, typer.Option("--agent", help="Run the federate agent too, for the river's topics.")
    ] = False,
) -> None:
    """Run the SuperLink and the gate that devices come through; Ctrl-C stops both."""
    from infra.federation import operator
    from infra.supervisor import Supervisor
    from infra.tls import check_pair

    if (certificate is None) != (key is None):
        raise SettingsInvalid("A certificate needs its key.", "Give --certificate and --key.")
    if certificate is not None and key is not None:
        check_pair(certificate, key)
    own = operator(host, port, certificate, key)
    parts = [*own.parts, *([_agent(own.folder)] if agent else [])]

    async def work() -> None:
        tell_devices(own)
        if not agent:
            out.print("Beside it: headwater agent federate.")
        out.print("Ctrl-C stops everything.")
        while True:
            touch_ready_file()
            await asyncio.sleep(HEARTBEAT_S)

    run(Supervisor(parts, own.folder, _show).run(work))


def tell_devices(own: Operator) -> None:
    """How devices come to an operator's gate."""
    out.print(f"Devices: headwater edge join --superlink {own.gate}", markup=False)
    if own.authority is not None:
        out.print(f"Give each device this file, for --ca: {own.authority}", markup=False)


def _agent(folder: Path) -> Part:
    """The federate agent of a river that runs elsewhere."""
    from infra.river import FEDERATE, agent_part

    env = {"HEADWATER_FEDERATE_SUPERLINK_FOLDER": str(folder)}
    return replace(agent_part(FEDERATE, env), after=("superlink",))


@edge_app.command("admit")
def admit(
    public_key: Annotated[Path, typer.Argument(help="What `headwater edge key` printed.")],
    owner: Annotated[str, typer.Option(help="Whose device it is: the unit of privacy.")],
    name: Annotated[str, typer.Option(help="Which of the owner's devices.")] = "device",
) -> None:
    """Let a device take part. All devices of one owner share one privacy budget."""
    link = _superlink()
    try:
        out.print(str(link.admit(public_key, owner, name)), markup=False)
    finally:
        link.close()


@edge_app.command("remove")
def remove(
    device: Annotated[str, typer.Argument(help="Its node id, or OWNER/NAME.")],
) -> None:
    """Refuse a device from now on. What it contributed stays in what was released."""
    link = _superlink()
    try:
        found = [n for n in link.nodes() if device in (str(n.node_id), n.name)]
        if not found:
            raise DataInvalid(f"There is no device {device}.", "See `headwater edge list`.")
        for node in found:
            link.remove(node.node_id)
            out.print(f"removed {node.name} ({node.node_id})", markup=False)
    finally:
        link.close()


@edge_app.command("list")
def list_devices(as_json: AsJson = False) -> None:
    """The admitted devices, and which are online."""
    link = _superlink()
    try:
        nodes = link.nodes()
    finally:
        link.close()
    for node in nodes:
        if as_json:
            print_json({"node_id": node.node_id, "name": node.name, "status": node.status})
        else:
            out.print(f"{node.node_id:<22}{node.status:<12}{node.name}", markup=False)
    if not nodes:
        err.print("No device is admitted yet.")


@edge_app.command("round")
def ask_round(
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    adapter: Annotated[str | None, typer.Option(help="Default: the one that learns.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a federated round, through Kafka; the federate agent does it."""
    from agents.settings import LearnedSettings

    name = adapter or load(LearnedSettings).adapter
    run(_ask_round(name, uuid.uuid4().hex, wait, as_json))


async def _ask_round(adapter: str, round_id: str, wait: bool, as_json: bool) -> None:
    from agents.rounds.asked_round import asked_record
    from schemas.events import FederatedRound
    from schemas.topics import FEDERATED_ROUNDS
    from streams.producer import Producer
    from streams.settings import KafkaSettings
    from streams.subscription import Subscription

    kafka = load(KafkaSettings)
    producer = Producer(kafka)
    try:
        async with Subscription(kafka, FEDERATED_ROUNDS) as events:
            await producer.send(asked_record(adapter, round_id, "asked by an operator"))
            if not wait:
                out.print(round_id)
                return
            async for event in events:
                if isinstance(event, FederatedRound) and event.round_id == round_id:
                    _print_event(event, as_json)
                    if event.status == "failed":
                        raise typer.Exit(1)
                    if event.status == "finished":
                        return
    finally:
        await producer.close()


def _print_event(event: object, as_json: bool) -> None:
    from schemas.events import FederatedRound

    assert isinstance(event, FederatedRound)
    if as_json:
        print_json(event)
        return
    told: list[str] = [event.status]
    if event.clients is not None:
        told.append(f"{event.clients} devices")
    if event.received_bytes is not None:
        told.append(f"{event.received_bytes:,} bytes")
    if event.duration_s is not None:
        told.append(f"{event.duration_s:.1f} s")
    told += [said for said in (event.model_version, event.reason) if said]
    out.print(", ".join(told), markup=False)


def _superlink() -> SuperLink:
    from agents.rounds.superlink import open_superlink
    from infra.federation import operator_settings

    return open_superlink(operator_settings())


def _show(notice: Notice) -> None:
    if notice.what != "started":
        err.print(f"{notice.part} {notice.what} {notice.detail}", style="dim", markup=False)
