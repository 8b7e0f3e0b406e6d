"""Where the local runtime keeps its files, and its few settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.cache import user_cache_dir
from streams.settings import load


class LocalSettings(BaseSettings):
    """Settings of the parts that run on this machine. Reads `HEADWATER_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", frozen=True, extra="ignore")

    cache_dir: Path = Field(
        default_factory=user_cache_dir,
        description="what can be fetched or made again: Kafka's jars, converted weights",
    )
    data_dir: Path = Field(
        Path(".headwater"), description="what the local river holds: topics, logs"
    )
    kafka_port: int = Field(9092, ge=1, le=65535, description="local Kafka: port for clients")
    kafka_controller_port: int = Field(
        9093, ge=1, le=65535, description="local Kafka: port of its controller"
    )
    kafka_heap_mib: int = Field(384, ge=192, description="local Kafka: the JVM's -Xmx")


def cache_dir() -> Path:
    """Give the folder for what can be fetched again; it may not exist yet."""
    return load(LocalSettings).cache_dir.expanduser().absolute()


def data_dir() -> Path:
    """Give the folder for what this checkout's river holds; it may not exist yet."""
    return load(LocalSettings).data_dir.expanduser().absolute()
