"""`headwater eval federation`: teaching together, alone, in private, and in one place."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from infra.commands.learning import check_writable
from infra.commands.progress import progress
from infra.commands.shell import out
from schemas.errors import SettingsInvalid

if TYPE_CHECKING:
    from infra.evaluation.federated_devices import RoundFigures


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
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw losses by round.")] = None,
) -> None:
    """Losses by round and F1 of answers, without Flower and the network; and what a round costs."""
    from infra.evaluation.federated_devices import Setting, read_devices
    from infra.evaluation.federation import ARMS, Trial
    from infra.evaluation.tracked import track_evaluation
    from models.cache import user_cache_dir
    from models.engine.load import load as load_model
    from models.federation.deltas import COMPRESSIONS

    if unknown := set(arm or ()) - set(ARMS):
        raise SettingsInvalid(f"There is no arm {unknown.pop()}.", f"They are {', '.join(ARMS)}.")
    check_writable(json_file, plot)
    packing = next((known for known in COMPRESSIONS if known == compression), None)
    if packing is None:
        raise SettingsInvalid(f"There is no {compression}.", f"They are {', '.join(COMPRESSIONS)}.")
    setting = Setting(
        devices, rounds, train, held_out, norm_max, epsilon, packing, learning_rate=rate
    )
    trial = Trial(
        load_model(model, user_cache_dir(), "auto", "auto"), read_devices(dataset, setting), setting
    )
    found: list[RoundFigures] = []
    for name in ARMS:
        if arm is None or name in arm:
            with progress(f"{name}, {rounds} rounds"):
                trial.run(name, found.append)
            if json_file is not None:
                json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    if plot is not None:
        from infra.evaluation.federation_plot import draw

        draw(found, plot)
    _print(found)
    # The last round of an arm says what it came to.
    last = {one.arm: msgspec.to_builtins(one) for one in found}
    track_evaluation("federation", last, asdict(setting), found)


def _print(figures: list[RoundFigures]) -> None:
    names = ("arm", "round", "loss", "F1", "s", "bytes of a device", "norm", "peak MiB")
    table = Table(*names)
    for one in figures:
        f1 = "" if one.f1 is None else f"{one.f1:g}"
        table.add_row(
            *(one.arm, f"{one.number}", f"{one.loss:g}", f1, f"{one.seconds:g}"),
            *(f"{one.device_bytes:,.0f}", f"{one.norm:g}", f"{one.rss_mib:g}"),
        )
    out.print(table)
