"""Settings of the local engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class TorchEngineOptions:
    """What the local engine runs and how. Raises SettingsInvalid.

    `slots` requests run together, each with up to `context_tokens_max` tokens of prompt and answer;
    keys and values take up to slots · context_tokens_max · (bytes per token; SmolLM2 in bfloat16:
    23 kB) of memory. `threads` None leaves torch's choice.
    """

    cache_dir: Path
    model: str = "smollm2"
    slots: int = 8
    context_tokens_max: int = 2048
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.slots < 1 or self.context_tokens_max < 2 or (self.threads or 1) < 1:
            raise SettingsInvalid(
                "slots and threads must be 1 or more, context_tokens_max 2 or more.",
                "Correct the engine's settings.",
            )
