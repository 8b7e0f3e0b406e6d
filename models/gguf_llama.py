"""A quantised Llama in one GGUF file, rewritten as a folder that transformers loads.

Reading the file with the `gguf` package takes seconds; transformers' own reader takes longer, wants
`accelerate`, and loses the digit splitting of SmolLM's tokenizer.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from schemas.errors import ModelUnavailable

# Of tokenizer.ggml.token_type: a control token such as <|im_end|>.
CONTROL_TOKEN = 3

TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf: Path, folder: Path) -> None:
    """Writes bfloat16 safetensors, configuration and tokenizer of `gguf` into `folder`.

    Raises ModelUnavailable when the file is no Llama with a SmolLM tokenizer and tied embeddings.
    """
    reader = GGUFReader(gguf)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    kind = (facts.get("general.architecture"), facts.get("tokenizer.ggml.pre"))
    if kind != ("llama", "smollm") or any(
        tensor.name == "output.weight" for tensor in reader.tensors
    ):
        raise ModelUnavailable(
            f"{gguf.name} holds {kind}, and only a SmolLM2 is understood.",
            "Name a folder of safetensors instead.",
        )
    # The bar would be drawn into a worker's log.
    transformers_logging.disable_progress_bar()
    _tokenizer(facts).save_pretrained(folder)
    _model(facts, reader).save_pretrained(folder)


def _model(facts: dict[str, Any], reader: GGUFReader) -> LlamaForCausalLM:
    config = _config(facts)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    heads: dict[str, int] = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.removesuffix(".weight").split(".")[-1]
        if part in heads:
            weight = _half_rotation(weight, heads[part])
        weights[_tensor_name(tensor.name, part)] = weight.to(torch.bfloat16)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    ends = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    model.generation_config = GenerationConfig(bos_token_id=config.bos_token_id, **ends)
    return model


def _tensor_name(name: str, part: str) -> str:
    layer = f"model.layers.{name.split('.')[1]}." if name.startswith("blk.") else ""
    return f"{layer}{TENSOR_NAMES[part]}.weight"


def _half_rotation(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(heads · D, H): from rotary pairs side by side, as in GGUF, to transformers' two halves."""
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)


def _config(facts: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        pad_token_id=facts["tokenizer.ggml.padding_token_id"],
        dtype=torch.bfloat16,
    )


def _tokenizer(facts: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    # "smollm" means: every digit is a token of its own, then byte-level BPE.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = facts["tokenizer.ggml.token_type"]
    control = [t for t, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[facts["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[facts["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[facts["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[facts["tokenizer.ggml.unknown_token_id"]],
        chat_template=facts["tokenizer.chat_template"],
        model_max_length=facts["llama.context_length"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
