"""Which number format a model computes in."""

from __future__ import annotations

import torch

from schemas.errors import SettingsInvalid

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32.

    A CPU needs AVX512-BF16 or AMX-BF16: without them bfloat16 is emulated and slower than float32.
    """
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        supported = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if supported else torch.float32


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format that a setting names; "auto" is `best_dtype`. Raises SettingsInvalid."""
    if name == "auto":
        return best_dtype(device)
    if name not in DTYPES:
        raise SettingsInvalid(f"No dtype {name!r}.", f"Use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


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
