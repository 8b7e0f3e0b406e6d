"""Which number format a model computes in."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from schemas.errors import SettingsInvalid

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32.

    Follows from what the processor says of itself, never from a measurement: a learner that starts
    again must compute in the format that it computed in before.
    """
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = _cpu_favours_bfloat16(torch.cpu.get_capabilities())
    return torch.bfloat16 if faster else torch.float32


def _cpu_favours_bfloat16(capabilities: Mapping[str, object]) -> bool:
    """With AMX, or with AVX512-BF16 unless the processor is Intel's.

    Intel's AVX512-BF16 multiplies as many pairs in a cycle as float32 does, and oneDNN reaches half
    of MKL's speed with it (docs/LOG.md). Some virtual machines announce it and hide AMX.
    """
    if capabilities.get("amx_bf16"):
        return True
    intel = "Intel" in str(capabilities.get("cpu_name"))
    return bool(capabilities.get("avx512_bf16")) and not intel


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format that a setting names; "auto" is `best_dtype`. Raises SettingsInvalid."""
    if name == "auto":
        return best_dtype(device)
    if name not in DTYPES:
        raise SettingsInvalid(f"No dtype {name!r}.", f"Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def dtype_name(name: str, device: torch.device) -> str:
    """What `choose_dtype` chooses, by the name that chooses it anywhere. Raises SettingsInvalid."""
    chosen = choose_dtype(name, device)
    return next(known for known, dtype in DTYPES.items() if dtype is chosen)


def choose_device(name: str) -> torch.device:
    """The device that a setting names; "auto" is CUDA if there is one. Raises SettingsInvalid."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsInvalid(f"No device {name!r}.", "Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsInvalid("This torch finds no CUDA device.", "Use device auto or cpu.")
    return device
