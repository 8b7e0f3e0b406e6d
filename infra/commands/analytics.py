"""`headwater analytics`: run the windows, and follow what they say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from infra.commands.pipes import ending_with_the_reader
from infra.commands.progress import fetching
from infra.commands.shell import AsJson, check_known, err, out, print_json, run
from infra.flink.provision import FlinkDistribution, provision_flink
from infra.flink.run import become_flink
from infra.paths import data_dir
from schemas.errors import ProvisioningFailed
from schemas.events import STATISTICS, Statistic
from streams.admin import check_connection
from streams.client import Client
from streams.settings import KafkaSettings, load
from streams.subscription import Since
from streams.windows.settings import AnalyticsSettings

analytics_app = typer.Typer(
    help="Windowed statistics: quality, feedback, drift, conversations, freshness, privacy.",
    no_args_is_help=True,
)


@analytics_app.command()
def tail(
    name: Annotated[
        str | None, typer.Option(help="Only these statistics: quality, drift, …")
    ] = None,
    since: Annotated[str, typer.Option(help="earliest or latest.")] = "latest",
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the statistics as their windows close. Ctrl-C ends it."""
    if since not in ("earliest", "latest"):
        raise typer.BadParameter("earliest or latest", param_hint="--since")
    if name is not None:
        check_known(name, STATISTICS, "statistic")
    start: Since = "earliest" if since == "earliest" else "latest"

    async def follow() -> None:
        shown = 0
        with ending_with_the_reader():
            async with Client(load(KafkaSettings)) as client:
                async for statistic in client.subscribe("analytics", since=start):
                    if name is not None and statistic.name != name:
                        continue
                    print_json(statistic) if as_json else _print(statistic)
                    shown += 1
                    if shown == count:
                        return

    run(follow())


@analytics_app.command("run")
def run_windows() -> None:
    """Run the windows in the foreground: in a Flink here, or at HEADWATER_ANALYTICS_CLUSTER."""
    settings, kafka = load(AnalyticsSettings), load(KafkaSettings)
    if settings.cluster is None:
        # Flink itself would wait for a broker for ever.
        check_connection(kafka)
    folder = settings.checkpoints or data_dir() / "windows"
    become_flink(fetched_flink(), kafka, settings, folder.expanduser().absolute())


@analytics_app.command("provision")
def provision_windows() -> None:
    """Make Flink's environment where it is missing."""
    out.print(f"Flink is in {fetched_flink().home}", markup=False)


def fetched_flink() -> FlinkDistribution:
    """Flink's files, with a progress bar while they are made."""
    with fetching("Flink") as report:
        return provision_flink(report)


def windows_wanted() -> bool:
    """Whether the windows run here: unless switched off, or Flink cannot be had."""
    if not load(AnalyticsSettings).enabled:
        return False
    try:
        fetched_flink()
    except ProvisioningFailed as error:
        err.print(f"There will be no windows. {error}", style="yellow", markup=False)
        return False
    return True


def _print(statistic: Statistic) -> None:
    """One line: when the window ended, how long it was, of what, and its values."""
    ended = datetime.fromtimestamp(statistic.window_end_ms / 1_000, UTC).strftime("%H:%M:%S")
    length_s = (statistic.window_end_ms - statistic.window_start_ms) / 1_000
    labels = " ".join(f"{key}={value}" for key, value in statistic.labels.items())
    values = " ".join(f"{key} {value:.6g}" for key, value in statistic.values.items())
    out.print(f"{ended} {length_s:4.0f} s {statistic.name} {labels}: {values}", markup=False)
