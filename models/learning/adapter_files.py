"""Adapters on disk, as PEFT reads and writes them. Safetensors only: nothing is unpickled."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.durable import sync_folder
from models.learning.adapter_layout import CONFIG_FILE, WEIGHTS_FILE
from models.learning.lora import LoraShape
from models.privacy.noise import Tensors
from schemas.errors import DataInvalid


class _Config(msgspec.Struct):
    """What we write and read of PEFT's LoraConfig; other fields have PEFT's defaults."""

    r: int
    lora_alpha: float
    target_modules: list[str]
    base_model_name_or_path: str | None = None
    peft_type: str = "LORA"
    task_type: str | None = "CAUSAL_LM"
    inference_mode: bool = True
    bias: str = "none"
    lora_dropout: float = 0.0
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}


def artifact_bytes(adapter: Tensors) -> bytes:
    """The weights file of an adapter; equal weights give equal bytes."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in adapter.items()})


def write_adapter(folder: Path, adapter: Tensors, shape: LoraShape, base: str) -> str:
    """Writes a folder that PEFT loads, durable and whole or not at all; returns the file's sha256.

    `base` names the base model. A folder that is there already is left as it is: name folders by
    their content.
    """
    content = artifact_bytes(adapter)
    if not folder.exists():
        config = _Config(shape.rank, shape.alpha, list(shape.targets), base)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(partial / WEIGHTS_FILE, content)
            _write(partial / CONFIG_FILE, msgspec.json.format(msgspec.json.encode(config)))
            partial.chmod(0o755)
            sync_folder(partial)
            partial.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return hashlib.sha256(content).hexdigest()


def read_adapter(folder: Path) -> tuple[Tensors, LoraShape]:
    """An adapter that we or PEFT wrote, on the CPU. Raises DataInvalid for another."""
    try:
        config = msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=_Config)
        tensors = load((folder / WEIGHTS_FILE).read_bytes())
    except (OSError, msgspec.DecodeError, SafetensorError) as error:
        raise DataInvalid(
            f"{folder} holds no LoRA adapter: {error}.",
            f"Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}.",
        ) from error
    plain = config.peft_type == "LORA" and config.bias == "none" and not config.modules_to_save
    uneven = config.rank_pattern or config.alpha_pattern or config.fan_in_fan_out
    if not plain or config.use_rslora or config.use_dora or uneven:
        raise DataInvalid(
            f"{folder} holds an adapter of another kind than plain LoRA.",
            "Train it without bias, modules_to_save, rsLoRA, DoRA and patterns.",
        )
    _check_rank(config.r, tensors)
    return tensors, LoraShape(config.r, config.lora_alpha, tuple(config.target_modules))


def _check_rank(rank: int, tensors: Tensors) -> None:
    """The scaling is alpha / r, so an r that is not the matrices' own would go unnoticed."""
    for name, tensor in tensors.items():
        axis = 0 if ".lora_A." in name else 1
        if tensor.ndim != 2 or rank < 1 or tensor.shape[axis] != rank:
            raise DataInvalid(
                f"{CONFIG_FILE} says rank {rank}, and {name[:200]} has the shape "
                f"{tuple(tensor.shape)}.",
                "Save weights and configuration of the same adapter.",
            )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
