"""Settings of the windowed statistics: one frozen class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Each job's file, and the statistics that it makes: views of the same names.
JOBS: Final[dict[str, tuple[str, ...]]] = {
    "quality": ("quality",),
    "feedback": ("feedback_joined", "feedback_late"),
    "drift": ("drift",),
    "conversations": ("conversations",),
    "freshness": ("freshness",),
    "privacy": ("privacy_spent",),
    "label_groups": ("label_groups",),
}


class AnalyticsSettings(BaseSettings):
    """Sizes of the windows and how Flink runs. Reads `HEADWATER_ANALYTICS_*`."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_ANALYTICS_", frozen=True, extra="ignore"
    )

    enabled: bool = Field(True, description="whether `headwater up` starts the windows")
    jobs: str = Field(",".join(JOBS), description="which jobs run, separated by commas")
    window_s: int = Field(60, ge=1, le=86_400, description="length of a window")
    lateness_s: int = Field(
        10, ge=1, le=86_400, description="how late a record may come and still count"
    )
    idle_s: int = Field(
        30, ge=1, le=3_600, description="silence after which a topic no longer holds windows back"
    )
    join_s: int = Field(
        3_600, ge=1, le=86_400, description="how long after its answer feedback is joined to it"
    )
    session_s: int = Field(
        600, ge=1, le=86_400, description="silence that ends a conversation, for its statistics"
    )
    drift_windows: int = Field(5, ge=1, le=100, description="recent windows compared for drift")
    reference_windows: int = Field(
        30, ge=1, le=1_000, description="the windows before them, with which they are compared"
    )
    state_s: int = Field(
        86_400, ge=60, description="how long ids of feedback and answers are remembered"
    )
    checkpoint_s: int = Field(
        5, ge=1, le=600, description="between checkpoints; results become visible with one"
    )
    transaction_timeout_s: int = Field(
        900, ge=60, le=900, description="how long results survive that Flink is down"
    )
    checkpoints: Path | None = Field(
        None, description="where checkpoints are kept; a folder of the local river by default"
    )
    heap_mib: int = Field(256, ge=256, description="local Flink: the JVM's -Xmx")
    cluster: str | None = Field(
        None, description="host:port of a Flink cluster's REST; a local Flink where unset"
    )

    @field_validator("jobs")
    @classmethod
    def _known_jobs(cls, jobs: str) -> str:
        unknown = [name for name in jobs.split(",") if name not in JOBS]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; the jobs: {', '.join(JOBS)}")
        return jobs

    @model_validator(mode="after")
    def _remembered(self) -> AnalyticsSettings:
        if self.state_s < 2 * self.join_s:
            raise ValueError("HEADWATER_ANALYTICS_STATE_S must be at least twice _JOIN_S")
        return self

    @property
    def job_names(self) -> list[str]:
        return self.jobs.split(",")
