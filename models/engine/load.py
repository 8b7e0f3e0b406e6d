"""Loads a model and says what the engine has to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from models.engine.chat import end_tokens, load_tokenizer
from models.precision import choose_device, choose_dtype
from models.weights import resolve_model
from schemas.errors import ModelUnavailable

# Layers whose keys and values are one entry for each position, which is what a slot holds.
LAYER_TYPES = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[int]
    context_tokens_max: int


def load(name: str, cache_dir: Path, device: str, dtype: str) -> Loaded:
    """Finds and loads a model. Raises ModelUnavailable, or SettingsInvalid for device and dtype."""
    target = choose_device(device)
    number_format = choose_dtype(dtype, target)
    folder = resolve_model(name, cache_dir)
    tokenizer = load_tokenizer(folder)
    model = _load_model(folder, target, number_format)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        end_tokens=end_tokens(tokenizer, model.generation_config),
        context_tokens_max=context_limit(model.config),
    )


def _load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    # The bar would be drawn into a worker's log.
    transformers_logging.disable_progress_bar()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            # Never pickled weights, whatever the folder holds.
            use_safetensors=True,
        )
        module: torch.nn.Module = model.eval()
        # In place. (Loading straight to a device would need accelerate.)
        module.to(device)
        return model
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelUnavailable(
            f"The model in {folder} cannot be loaded: {error}",
            "It must be a causal model in safetensors that fits into memory.",
        ) from error


def context_limit(config: PreTrainedConfig) -> int:
    """The longest context that slots serve exactly. Raises ModelUnavailable.

    Slots attend to everything before, so a sliding window bounds the context to its size.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None)
    if not kinds <= LAYER_TYPES:
        raise ModelUnavailable(
            f"The engine cannot run layers of type {', '.join(sorted(kinds - LAYER_TYPES))}.",
            "Use a model with standard attention in every layer.",
        )
    limit = int(text.max_position_embeddings)
    slides = "sliding_attention" in kinds or not getattr(text, "layer_types", None)
    return min(limit, window) if window and slides else limit
