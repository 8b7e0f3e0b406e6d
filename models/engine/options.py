"""Settings of the local engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class TorchEngineOptions:
    """What the local engine runs and how. Raises SettingsInvalid.

    `slots` requests run together, each with up to `context_tokens_max` tokens of prompt and answer.
    Keys and values take up to `kv_bytes_max` of memory (SmolLM2 in bfloat16: 23 kB a token), by
    default enough for `slots` requests of 512 tokens. At least two whole contexts
    must fit. `prompt_tokens_step` tokens of prompts are read in one step at most. An answer has
    up to `guesses_max` next tokens guessed from its own text while few decode, 0 for never: see
    `prompt_lookup`. `weights` are of 4 bits for up to 4 rows, 8 where the others are float32
    and the CPU has AVX512 ("4bit"), of the model's own size ("full"), or 4 bits where nothing is
    lost ("auto": the packaged model, whose file has 4 bits, unless `dtype` is "float32").
    `adapters_max` versions are in memory together, each of rank `adapter_rank_max` at most: memory
    for that many of the highest rank seen is taken. `threads` None leaves torch's choice.
    `lanes` share them, the slots and the memory for keys and values, see `lanes`; None takes what
    is fastest. There are fewer where memory has no room for two whole contexts each.
    `cuda_graphs` matter on a GPU alone, see `decode_graphs`; nothing is guessed with them.
    `compile` compiles small operations to few ("auto": on a GPU), see `elementwise`.
    """

    cache_dir: Path
    model: str = "smollm2"
    slots: int = 16
    context_tokens_max: int = 2048
    kv_bytes_max: int | None = None
    prompt_tokens_step: int = 256
    guesses_max: int = 3
    weights: Literal["auto", "full", "4bit"] = "auto"
    adapters_max: int = 32
    adapter_rank_max: int = 64
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    lanes: int | None = None
    cuda_graphs: bool = True
    compile: Literal["auto", "true", "false"] = "auto"

    def __post_init__(self) -> None:
        adapters = (self.adapters_max, self.adapter_rank_max)
        shares = [count for count in (self.threads, self.lanes) if count is not None]
        counts = (self.slots, self.prompt_tokens_step, *adapters, *shares)
        if min(counts) < 1 or self.context_tokens_max < 2 or self.guesses_max < 0:
            raise SettingsInvalid(
                "slots, prompt_tokens_step, adapters_max, adapter_rank_max, threads and lanes must "
                "be 1 or more, context_tokens_max 2 or more, guesses_max 0 or more.",
                "Correct the engine's settings.",
            )
