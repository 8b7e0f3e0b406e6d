"""`headwater up`, `demo` and `doctor`: running the river on this machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.gateway.settings import GatewaySettings
from agents.monitor.settings import MonitorSettings
from agents.studying.settings import StudySettings
from infra.commands.analytics import windows_wanted
from infra.commands.fleet import tell_devices
from infra.commands.next_steps import next_steps, serve_it, show_tracking
from infra.commands.progress import fetching
from infra.commands.shell import AsJson, err, out, print_json, run
from infra.doctor import diagnose
from infra.paths import LocalSettings
from infra.ports import free_ports, is_free
from infra.provision import KafkaDistribution, provision
from infra.river import (
    ANSWERING,
    EVERYTHING,
    FEDERATE,
    GATEWAY,
    MONITOR,
    SERVING,
    STUDY,
    River,
    local_river,
    tracked,
)
from infra.supervisor import Notice, Supervisor
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load

if TYPE_CHECKING:
    from infra.federation import Operator


def up(
    federation: Annotated[
        bool, typer.Option("--federation", help="Let devices teach too: SuperLink, gate, agent.")
    ] = False,
    federation_host: Annotated[
        str, typer.Option(help="Name or address by which devices reach this machine.")
    ] = "127.0.0.1",
    federation_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port for devices.")
    ] = 9443,
) -> None:
    """Start Kafka, its topics and every agent on this machine; Ctrl-C stops them."""
    settings, gateway = load(LocalSettings), load(GatewaySettings)
    operator = _operator(federation_host, federation_port) if federation else None
    _require_free(
        settings.kafka_port,
        settings.kafka_controller_port,
        gateway.port,
        load(MonitorSettings).metrics_port,
        *([federation_port] if federation else []),
    )
    data_dir = settings.data_dir.expanduser().absolute()
    river = local_river(
        fetched(),
        data_dir,
        settings.kafka_port,
        settings.kafka_controller_port,
        _federating(operator),
        _wanted(operator),
        windows_wanted(),
        needed=SERVING,
    )
    if operator is not None:
        river.parts.extend(replace(part, needed=False) for part in operator.parts)

    async def work() -> None:
        next_steps(river, gateway.port)
        if operator is not None:
            tell_devices(operator)
        metrics = f"http://127.0.0.1:{load(MonitorSettings).metrics_port}/metrics"
        out.print(f"Figures for Prometheus are at {metrics}", markup=False)
        await asyncio.Event().wait()

    run(supervised(river, work))


def _wanted(operator: Operator | None) -> tuple[str, ...]:
    """All agents, with those that a setting or an option adds."""
    studying = (STUDY,) if load(StudySettings).enabled else ()
    federating = () if operator is None else (FEDERATE,)
    return tracked((*EVERYTHING, *studying, *federating))


def _operator(host: str, port: int) -> Operator:
    # Imported late: it brings Flower.
    from infra.federation import operator

    return operator(host, port)


def _federating(operator: Operator | None) -> dict[str, str]:
    if operator is None:
        return {}
    return {"HEADWATER_FEDERATE_SUPERLINK_FOLDER": str(operator.folder)}


def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself, with a summary.")] = False,
    learning: Annotated[
        bool, typer.Option(help="Let a panel teach the model, which takes minutes.")
    ] = True,
) -> None:
    """Start everything, ingest the standard library's docstrings, ask, rate, teach, measure."""
    from infra.demo.learning import LEARNING_ENV
    from infra.demo.run import demonstrate
    from infra.demo.windows import WINDOWS_ENV

    data_dir = load(LocalSettings).data_dir.expanduser().absolute() / "demo"
    distribution = fetched()
    shutil.rmtree(data_dir, ignore_errors=True)
    agents = tracked(EVERYTHING) if learning else (*ANSWERING, GATEWAY, MONITOR)
    gateway_port, port, controller_port = _ports()
    env = {
        **LEARNING_ENV,
        **WINDOWS_ENV,
        "HEADWATER_GATEWAY_PORT": str(gateway_port),
        "HEADWATER_MONITOR_METRICS_PORT": str(_metrics_port()),
    }
    windows = windows_wanted()
    river = local_river(distribution, data_dir, port, controller_port, env, agents, windows)
    kafka = load(KafkaSettings, bootstrap=river.bootstrap)

    async def work() -> dict[str, Any]:
        summary = await demonstrate(kafka, learning, windows)
        if once:
            show_tracking(river)
        else:
            next_steps(river, gateway_port)
            await asyncio.Event().wait()
        return summary

    summary = run(supervised(river, work))
    if summary is None:
        raise typer.Exit(130)
    print_json(summary)
    if once:
        serve_it()


def doctor(as_json: AsJson = False) -> None:
    """Say what is missing on this machine, and how to get it."""
    findings = diagnose()
    for finding in findings:
        if as_json:
            print_json(finding)
            continue
        mark = "ok " if finding.ok else "-- " if not finding.needed else "NO "
        out.print(f"{mark} {finding.name}: {finding.detail}", markup=False)
        if not finding.ok and finding.remedy:
            out.print(f"      {finding.remedy}", markup=False)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


def fetched() -> KafkaDistribution:
    """Kafka's files, with a progress bar while they are fetched."""
    with fetching("Kafka") as report:
        return provision(report)


async def supervised(river: River, work: Callable[[], Awaitable[Any]]) -> Any:
    supervisor = Supervisor(river.parts, river.data_dir, _show)
    return await supervisor.run(work)


def _show(notice: Notice) -> None:
    if notice.what == "started":
        return
    line = f"{notice.part} {notice.what} {notice.detail}".rstrip()
    if notice.what == "left down":
        line = f"{notice.part} is left down, the others go on. {notice.detail}"
    err.print(line, style="red" if notice.what == "left down" else "dim", markup=False)


def _ports() -> tuple[int, int, int]:
    """Those configured for the gateway, Kafka and its controller, or any that are free."""
    settings = load(LocalSettings)
    wanted = load(GatewaySettings).port, settings.kafka_port, settings.kafka_controller_port
    if all(map(is_free, wanted)):
        return wanted
    gateway_port, port, controller_port = free_ports(3)
    return gateway_port, port, controller_port


def _metrics_port() -> int:
    """The monitor's as configured, or one that is free."""
    wanted = load(MonitorSettings).metrics_port
    return wanted if is_free(wanted) else free_ports(1)[0]


def _require_free(*ports: int) -> None:
    for port in ports:
        if not is_free(port):
            raise SettingsInvalid(
                f"Port {port} is taken: perhaps a river runs already.",
                "Stop it, or set HEADWATER_KAFKA_PORT, HEADWATER_KAFKA_CONTROLLER_PORT, "
                "HEADWATER_GATEWAY_PORT and HEADWATER_MONITOR_METRICS_PORT; "
                "--federation-port for devices.",
            )
