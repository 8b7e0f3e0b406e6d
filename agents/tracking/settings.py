"""What an operator may set of tracking."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_SERVERS: Final = ("http://", "https://", "databricks")


class TrackSettings(BaseSettings):
    """Reads `HEADWATER_TRACK_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_TRACK_", frozen=True, extra="forbid")

    mlflow: bool = Field(True, description="write runs, releases and evaluations to MLflow")
    tensorboard: bool = Field(True, description="write curves for TensorBoard")
    mlflow_uri: str | None = Field(
        None,
        description="MLflow's server or database, such as http://mlflow:5000; default: a SQLite "
        "file in the folder",
    )
    experiment: str = Field(
        "headwater",
        min_length=1,
        description="MLflow's experiment; that of evaluations begins with its name",
    )
    folder: Path = Field(
        Path(".headwater/tracking"), description="MLflow's database and artifacts, and curves"
    )
    nice: int = Field(15, ge=0, le=19, description="how far tracking yields to everything else")

    @property
    def root(self) -> Path:
        """The folder, absolute."""
        return self.folder.expanduser().absolute()

    @property
    def database(self) -> Path:
        """MLflow's own, where no other store is set."""
        return self.root / "mlflow.db"

    @property
    def store_uri(self) -> str:
        """Where MLflow keeps runs and versions."""
        return self.mlflow_uri or f"sqlite:///{self.database}"

    @property
    def artifacts_uri(self) -> str | None:
        """Where a new experiment keeps its files; none where a server decides."""
        if self.store_uri.startswith(_SERVERS):
            return None
        return (self.root / "artifacts").as_uri()

    @property
    def curves(self) -> Path:
        """What TensorBoard reads; a folder for each run."""
        return self.root / "tensorboard"

    @property
    def on(self) -> bool:
        """Whether anything is written, by these settings and by what is installed."""
        wanted = {"mlflow": self.mlflow, "tensorboard": self.tensorboard}
        return any(wanted.values()) and all(
            importlib.util.find_spec(name) is not None for name, is_on in wanted.items() if is_on
        )
