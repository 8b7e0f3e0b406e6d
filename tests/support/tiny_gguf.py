"""A tiny Llama as the GGUF file that llama.cpp would make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFWriter

from models.gguf_llama import TENSOR_NAMES


def write_tiny_gguf(file: Path, model: Any, tokenizer: Any, pre: str = "smollm") -> Path:
    """Writes float32 tensors, the configuration and the tokenizer of `model`."""
    writer = GGUFWriter(file, "llama")
    _add_config(writer, model)
    _add_tokenizer(writer, tokenizer, pre)
    heads = {
        "self_attn.q_proj": model.config.num_attention_heads,
        "self_attn.k_proj": model.config.num_key_value_heads,
    }
    for gguf_name, name in TENSOR_NAMES.items():
        for path, weight in model.state_dict().items():
            if path.endswith(f"{name}.weight"):
                block = f"blk.{path.split('.')[2]}." if path.startswith("model.layers.") else ""
                if name in heads:
                    weight = _side_by_side(weight, heads[name])
                writer.add_tensor(f"{block}{gguf_name}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _side_by_side(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary pairs (i, i + D/2) of each head become neighbours (2i, 2i + 1)."""
    size = weight.shape[0] // heads
    order = [half * size // 2 + i for i in range(size // 2) for half in (0, 1)]
    return weight[[head * size + place for head in range(heads) for place in order]]


def _add_config(writer: GGUFWriter, model: Any) -> None:
    config = model.config
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: GGUFWriter, tokenizer: Any, pre: str) -> None:
    words = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = sorted(tokenizer.get_vocab(), key=lambda token: tokenizer.get_vocab()[token])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in words["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
