"""MLflow's runs. Whatever is written twice is there once: runs are found again by their name."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agents.tracking.points import Point
from agents.tracking.settings import TrackSettings

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_RUN_TAG: Final = "headwater.run"
_PARENT_TAG: Final = "mlflow.parentRunId"
# What MLflow takes in names of metrics, parameters and tags.
_REFUSED: Final = re.compile(r"[^\w\-./: ]")
# Of a parameter's value; a tag's may be somewhat shorter than MLflow allows.
_VALUE_CHARS_MAX: Final = 5000


class MlflowStore:
    """One experiment of one store. Not for several threads, and one process for an experiment."""

    def __init__(self, settings: TrackSettings, part: str = "") -> None:
        """Opens the store, and makes it where there is none. `part` is added to the experiment's
        name. Raises MlflowException where it cannot be reached."""
        self.client = open_client(settings)
        name = settings.experiment + (f"-{part}" if part else "")
        known = self.client.get_experiment_by_name(name)
        self._experiment: str = (
            self.client.create_experiment(name, artifact_location=settings.artifacts_uri)
            if known is None
            else known.experiment_id
        )
        self._runs: dict[str, str] = {}
        # Steps that a run has already, and its parameters, which MLflow refuses to change.
        self._steps: dict[str, set[int]] = {}

    def write(self, point: Point) -> None:
        """Adds what the store does not have yet. Raises MlflowException."""
        from mlflow.entities import Metric, Param, RunTag

        run_id = self.run_id(point.run, point.at_ms)
        tags = dict(point.tags)
        if point.parent is not None:
            tags[_PARENT_TAG] = self.run_id(point.parent, point.at_ms)
        steps = self._steps[run_id]
        fresh = point.metrics if point.step not in steps else {}
        self.client.log_batch(
            run_id,
            metrics=[
                Metric(_named(name), value, point.at_ms, point.step)
                for name, value in fresh.items()
            ],
            params=[
                Param(_named(name), value[:_VALUE_CHARS_MAX])
                for name, value in point.params.items()
            ],
            tags=[RunTag(_named(name), value[:_VALUE_CHARS_MAX]) for name, value in tags.items()],
        )
        if fresh:
            steps.add(point.step)
        if point.ended is not None:
            self.client.set_terminated(run_id, point.ended, point.at_ms)

    def run_id(self, run: str, at_ms: int) -> str:
        """MLflow's id of a run, which begins here where it has not."""
        if run not in self._runs:
            quoted = run.replace("'", "")
            found = self.client.search_runs(
                [self._experiment], f"tags.`{_RUN_TAG}` = '{quoted}'", max_results=1
            )
            run_id: str = (
                found[0].info.run_id
                if found
                else self.client.create_run(
                    self._experiment, start_time=at_ms, run_name=run, tags={_RUN_TAG: quoted}
                ).info.run_id
            )
            self._steps[run_id] = self._known_steps(run_id)
            self._runs[run] = run_id
        return self._runs[run]

    def add_files(self, run_id: str, folder: Path, at: str) -> str:
        """Copies a folder's files to a run's artifacts; returns their URI."""
        self.client.log_artifacts(run_id, str(folder), at)
        return f"{self.client.get_run(run_id).info.artifact_uri}/{at}"

    def _known_steps(self, run_id: str) -> set[int]:
        # All metrics of a step are written in one transaction, but not every step has all.
        return {
            found.step
            for name in self.client.get_run(run_id).data.metrics
            for found in self.client.get_metric_history(run_id, name)
        }


def open_client(settings: TrackSettings) -> MlflowClient:
    """A client of the store; MLflow is imported here, which takes seconds."""
    # It tells its makers of its use unless it is told not to.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # Fewer and shorter attempts than MLflow's own, which wait for minutes: the caller tries again.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient

    # Importing it sets them up.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    settings.root.mkdir(parents=True, exist_ok=True)
    if not (settings.mlflow_uri or settings.database.exists()):
        _make_database(settings.database)
    return MlflowClient(tracking_uri=settings.store_uri, registry_uri=settings.store_uri)


def _make_database(path: Path) -> None:
    """There as a whole or not at all: MLflow cannot go on with one that is half made, and others
    may open it at any time."""
    from mlflow.tracking import MlflowClient

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{partial}")
    # Another process may have been first, and may have written to its own.
    with suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def _named(name: str) -> str:
    return _REFUSED.sub("_", name)
