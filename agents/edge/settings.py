"""What a device's owner may set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.cache import user_cache_dir


class EdgeSettings(BaseSettings):
    """A device that takes part in federated rounds. Reads `HEADWATER_EDGE_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_EDGE_", frozen=True, extra="forbid")

    folder: Path = Field(
        Path(".headwater/edge"), description="the device's key, examples and account; keep it safe"
    )
    model: str = Field("smollm2", description="`smollm2`, or a Hugging Face folder or name")
    device: str = Field("auto", description="`cpu`, `cuda`, or `auto`")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the frozen model; the adapter is float32"
    )
    threads: int = Field(1, ge=1, description="CPU threads")
    nice: int = Field(15, ge=0, le=19, description="how far training yields to everything else")
    cpu_share: float = Field(1.0, gt=0, le=1, description="of the time, how much is spent training")
    memory_mib_max: int | None = Field(
        None, ge=256, description="memory of the trainer; default: no limit"
    )
    idle_only: bool = Field(False, description="refuse a round while the machine is busy")
    charging_only: bool = Field(
        False, description="refuse a round on battery, where the platform tells"
    )
    norm_max: float = Field(
        10.0, gt=0, description="longest delta that may leave, whatever the server allows"
    )
    noise_min: float = Field(
        0.0, ge=0, description="noise on the delta, in norms; refuse a round that asks for less"
    )
    epochs_max: int = Field(4, ge=1, description="most passes over the examples in a round")
    cache_dir: Path = Field(
        default_factory=user_cache_dir,
        validation_alias="HEADWATER_CACHE_DIR",
        description="where converted weights are kept",
    )
