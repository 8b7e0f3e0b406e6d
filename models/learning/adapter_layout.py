"""The two files of an adapter in PEFT's layout; apart, for readers that need no torch."""

from __future__ import annotations

from typing import Final

WEIGHTS_FILE: Final = "adapter_model.safetensors"
CONFIG_FILE: Final = "adapter_config.json"
