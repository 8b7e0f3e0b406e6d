"""Where tracking writes, as the settings say; all of it belongs to one thread."""

from __future__ import annotations

from typing import Any

from agents.tracking.mlflow_store import MlflowStore
from agents.tracking.points import Point
from agents.tracking.registry import Registry
from agents.tracking.settings import TrackSettings
from agents.tracking.tensorboard_files import TensorBoardFiles
from schemas.events import ModelUpdate


class Sinks:
    """MLflow, TensorBoard, both, or neither."""

    def __init__(self, settings: TrackSettings, part: str = "") -> None:
        """Opens the stores; a `part` is an experiment apart. Raises MlflowException, OSError."""
        self._mlflow = MlflowStore(settings, part) if settings.mlflow else None
        self._registry = Registry(self._mlflow, settings) if self._mlflow else None
        self._curves = TensorBoardFiles(settings.curves / part) if settings.tensorboard else None

    def write(self, point: Point) -> None:
        """Adds what is not there yet."""
        if self._mlflow is not None:
            self._mlflow.write(point)
        if self._curves is not None and point.metrics:
            self._curves.write(point.run, point.step, point.at_ms, point.metrics)

    def attach(self, point: Point, figures: dict[str, Any]) -> None:
        """Keeps figures as a file of the point's run."""
        if self._mlflow is not None:
            run_id = self._mlflow.run_id(point.run, point.at_ms)
            self._mlflow.client.log_dict(run_id, figures, "figures.json")

    def release(self, update: ModelUpdate) -> None:
        """Registers a version that is not known yet."""
        if self._registry is not None:
            self._registry.release(update)

    def make_live(self, adapter: str, model_version: str) -> None:
        """Moves the alias to the version that serves."""
        if self._registry is not None:
            self._registry.make_live(adapter, model_version)

    def close(self) -> None:
        if self._curves is not None:
            self._curves.close()


def refused(error: Exception) -> bool:
    """Whether a store will never take what it was given, however often it is tried."""
    code = getattr(error, "error_code", None)
    return code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
