"""Where the local runtime keeps its files, and its few settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def user_cache_dir() -> Path:
    """Give this user's cache folder for Headwater: XDG's on Linux, the system's own elsewhere."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        # The XDG specification says to ignore a relative path.
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = named if named.is_absolute() else Path.home() / ".cache"
    return base / "headwater"


class LocalSettings(BaseSettings):
    """Settings of the parts that run on this machine; each has its environment name beside it."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", frozen=True, extra="ignore")

    cache_dir: Path = Field(default_factory=user_cache_dir)  # HEADWATER_CACHE_DIR: downloads
    data_dir: Path = Path(".headwater")  # HEADWATER_DATA_DIR: topics, tables, logs
    kafka_port: int = Field(default=9092, ge=1, le=65535)  # HEADWATER_KAFKA_PORT: for clients
    kafka_controller_port: int = Field(
        default=9093, ge=1, le=65535
    )  # HEADWATER_KAFKA_CONTROLLER_PORT
    kafka_heap_mib: int = Field(default=384, ge=192)  # HEADWATER_KAFKA_HEAP_MIB: the JVM's -Xmx


def cache_dir() -> Path:
    """Give the folder for what can be fetched again; it may not exist yet."""
    return LocalSettings().cache_dir.expanduser().absolute()


def data_dir() -> Path:
    """Give the folder for what this checkout's river holds; it may not exist yet."""
    return LocalSettings().data_dir.expanduser().absolute()
