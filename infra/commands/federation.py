"""`headwater eval federation`: teaching together, alone, in private, and in one place."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from infra.commands.learning import check_writable
from infra.commands.progress import progress
from infra.commands.shell import out, run
from schemas.errors import SettingsInvalid

if TYPE_CHECKING:
    from infra.evaluation.federated_devices import Device, RoundFigures, Setting
    from infra.evaluation.federation import Exchange, Trial
    from infra.evaluation.federation_scale import ScaleFigures
    from models.federation.deltas import Compression


def federation(
    dataset: Annotated[Path, typer.Option(help="A file in SQuAD's format, such as XQuAD.")],
    devices: Annotated[int, typer.Option(min=1, help="Each has its own stretch of it.")] = 8,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    train: Annotated[int, typer.Option(min=1, help="Questions that a device learns from.")] = 8,
    held_out: Annotated[int, typer.Option(min=1, help="Questions of it for the test.")] = 3,
    norm_max: Annotated[float, typer.Option(help="Limit of a device's delta.")] = 1.0,
    epsilon: Annotated[float, typer.Option(help="Of a device, in federated-private.")] = 8.0,
    compression: Annotated[str, typer.Option(help="none, int8 or topk.")] = "none",
    rate: Annotated[float, typer.Option(help="The devices' learning rate.")] = 1e-3,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="local, federated, federated-private, centralised; all by default."),
    ] = None,
    model: Annotated[str, typer.Option(help="As HEADWATER_GENERATE_MODEL.")] = "smollm2",
    processes: Annotated[
        int, typer.Option(min=0, help="Devices that are real processes; Flower simulates the rest.")
    ] = 3,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="All of them in this process, without Flower.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw losses and F1 by round.")] = None,
    add: Annotated[bool, typer.Option(help="Keep the arms that the JSON file holds.")] = False,
) -> None:
    """Loss and F1 of answers by round, alone, federated, in private and in one place."""
    from infra.evaluation.federated_devices import Setting, read_devices
    from infra.evaluation.federation import ARMS, Trial
    from infra.evaluation.tracked import track_evaluation
    from models.cache import user_cache_dir
    from models.engine.load import load as load_model

    if unknown := set(arm or ()) - set(ARMS):
        raise SettingsInvalid(f"There is no arm {unknown.pop()}.", f"They are {', '.join(ARMS)}.")
    check_writable(json_file, plot)
    packing = _packing(compression)
    setting = Setting(
        devices, rounds, train, held_out, norm_max, epsilon, packing, learning_rate=rate
    )
    own = read_devices(dataset, setting)
    trial = Trial(load_model(model, user_cache_dir(), "auto", "auto"), own, setting)
    found = _written(json_file) if add and json_file is not None else []

    async def all_arms(exchange: Exchange | None) -> None:
        for name in [name for name in ARMS if arm is None or name in arm]:
            with progress(f"{name}, {rounds} rounds"):
                await trial.run(name, found.append, exchange)
            _write(json_file, found)

    alone = arm is not None and not any(name.startswith("federated") for name in arm)
    if in_process or alone:
        run(all_arms(None))
    else:
        _on_fleet(trial, own, setting, model, min(processes, devices), all_arms)
    if plot is not None:
        from infra.evaluation.federation_plot import draw

        draw(found, plot)
    _print(found)
    # The last round of an arm says what it came to.
    last = {one.arm: msgspec.to_builtins(one) for one in found}
    track_evaluation("federation", last, asdict(setting), found)


def _packing(compression: str) -> Compression:
    from models.federation.deltas import COMPRESSIONS

    for known in COMPRESSIONS:
        if known == compression:
            return known
    raise SettingsInvalid(f"There is no {compression}.", f"They are {', '.join(COMPRESSIONS)}.")


def _write(json_file: Path | None, found: Sequence[RoundFigures | ScaleFigures]) -> None:
    """After each arm or round: what is done is kept even if the rest is interrupted."""
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


def federation_scale(
    devices: Annotated[int, typer.Option(min=1)] = 1000,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
) -> None:
    """Many devices in Flower's simulation, with a tiny model: time and memory by round."""
    from infra.evaluation.federated_fleet import check_simulation
    from infra.evaluation.federation_scale import many_devices
    from infra.evaluation.tracked import track_evaluation

    check_simulation(devices)
    check_writable(json_file)
    found: list[ScaleFigures] = []
    with (
        tempfile.TemporaryDirectory(prefix="headwater-") as folder,
        progress(f"{devices} devices, {rounds} rounds") as report,
    ):

        def told(figures: ScaleFigures) -> None:
            found.append(figures)
            report(figures.number, rounds)
            _write(json_file, found)

        if not run(many_devices(Path(folder), devices, rounds, told)):
            raise typer.Exit(130)
    track_evaluation(
        "federation-scale",
        {str(one.number): msgspec.to_builtins(one) for one in found},
        {"devices": devices, "rounds": rounds},
    )
    table = Table("round", "s", "ms a device", "bytes of a device", "MiB of all processes")
    for one in found:
        table.add_row(
            *(f"{one.number}", f"{one.seconds:g}", f"{one.device_ms:g}"),
            *(f"{one.device_bytes:,.0f}", f"{one.processes_mib:g}"),
        )
    out.print(table)


def _written(path: Path) -> list[RoundFigures]:
    from infra.evaluation.federated_devices import RoundFigures

    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[RoundFigures])
    except msgspec.DecodeError as error:
        raise SettingsInvalid(
            f"{path} holds no figures of this command: {error}.", "Leave --add out."
        ) from error


def _on_fleet(
    trial: Trial,
    devices: list[Device],
    setting: Setting,
    model: str,
    processes: int,
    work: Callable[[Exchange], Awaitable[None]],
) -> None:
    from infra.evaluation.federated_fleet import on_fleet

    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        ended = run(on_fleet(trial, devices, setting, model, processes, Path(folder), work))
    if not ended:
        raise typer.Exit(130)


def _print(figures: list[RoundFigures]) -> None:
    names = ("arm", "round", "loss", "F1", "s", "bytes of a device", "norm", "peak MiB")
    table = Table(*names)
    for one in figures:
        table.add_row(
            *(one.arm, f"{one.number}", f"{one.loss:g}", f"{one.f1:g}", f"{one.seconds:g}"),
            *(f"{one.device_bytes:,.0f}", f"{one.norm:g}", f"{one.rss_mib:g}"),
        )
    out.print(table)
