"""The weights behind two versions, compared."""

from __future__ import annotations

from pathlib import Path

from models.artifacts import fetch
from models.learning.adapter_files import read_adapter
from models.learning.compare import ModuleDistance, compare
from models.learning.lora import LoraShape
from models.privacy.noise import Tensors
from schemas.events import ModelUpdate


def distances(first: ModelUpdate, second: ModelUpdate, cache_dir: Path) -> list[ModuleDistance]:
    """By module. Raises ArtifactInvalid, ArtifactUnavailable and DataInvalid."""
    return compare(_weights(first, cache_dir), _weights(second, cache_dir))


def _weights(update: ModelUpdate, cache_dir: Path) -> tuple[Tensors, LoraShape]:
    if update.artifact_uri is None or update.artifact_sha256 is None:
        return {}, LoraShape()  # the base model
    config_sha256 = update.artifact_config_sha256
    return read_adapter(
        fetch(update.artifact_uri, update.artifact_sha256, cache_dir / "gate", config_sha256)
    )
