"""What is said once the river is up: where everything is, and what can be done."""

from __future__ import annotations

from agents.gateway.settings import GatewaySettings
from agents.tracking.settings import TrackSettings
from infra.commands.shell import err, out
from infra.river import TRACK, River, tracking_of
from streams.settings import KafkaSettings, load


def next_steps(river: River, gateway_port: int) -> None:
    """What to do with a river that is up."""
    default = KafkaSettings.model_fields["bootstrap"].default
    env = "" if river.bootstrap == default else f"HEADWATER_KAFKA_BOOTSTRAP={river.bootstrap} "
    out.print(f"Kafka is at {river.bootstrap}; logs are in {river.data_dir / 'logs'}", markup=False)
    address = f"http://127.0.0.1:{gateway_port}"
    out.print(f"The page is at {address}/ui/, OpenAI's API at {address}/v1", markup=False)
    out.print("In another terminal:")
    for command in (
        'ask "What does os.path.join do?"',
        "publish README.md --wait",
        "watch tokens",
        "topics",
    ):
        out.print(f"  {env}.venv/bin/headwater {command}", markup=False)
    show_tracking(river)
    out.print("Ctrl-C stops everything.")


def serve_it() -> None:
    """Where the page is to be had once nothing runs any more; beside what programs read."""
    page = f"http://127.0.0.1:{load(GatewaySettings).port}/ui/"
    err.print(f"All is stopped. `.venv/bin/headwater up` serves the page at {page}", markup=False)


def show_tracking(river: River) -> None:
    """How to see what was tracked: one line for each of the programs."""
    if TRACK not in {part.name for part in river.parts}:
        return
    settings = tracking_of(river.data_dir)
    if settings.mlflow:
        out.print(f"Runs and versions: {_mlflow_ui(settings)}", markup=False, soft_wrap=True)
    if settings.tensorboard:
        line = f"Curves: .venv/bin/tensorboard --logdir {settings.curves}"
        out.print(line, markup=False, soft_wrap=True)


def _mlflow_ui(settings: TrackSettings) -> str:
    """The command that shows a store, or the address of a server."""
    if settings.artifacts_uri is None:
        return settings.store_uri
    quiet = "MLFLOW_DISABLE_TELEMETRY=true"
    return f"{quiet} .venv/bin/mlflow ui --backend-store-uri {settings.store_uri}"
