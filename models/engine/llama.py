"""Llama and its near relatives, as one pass over a flat list of tokens from many requests.

Hugging Face's modules would compute the same, three times slower for a small model: here query,
key and value are one product, so are gate and up, the rotation is three operations, and keys and
values are written in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedConfig

from models.engine.elementwise import Parts, gated, rotated
from models.engine.linears import Linear
from schemas.errors import ModelUnavailable

# What differs between them: biases (qwen2) and normed queries and keys (qwen3).
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Rotations whose angles do not depend on how long the text is.
ROTATIONS = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Shape:
    """H hidden, I inner (of the MLP), Q query heads, K key (and value) heads, D numbers in a
    head."""

    layers: int
    hidden: int
    inner: int
    query_heads: int
    key_heads: int
    head_size: int

    @property
    def queries_per_key(self) -> int:
        """G: query heads that share a key head."""
        return self.query_heads // self.key_heads

    @property
    def query_size(self) -> int:
        return self.query_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Keys and values of one position in one layer."""
        return 2 * self.key_heads * self.head_size


class Attention(Protocol):
    """Some of the pass's tokens, and the keys and values that they look at."""

    tokens: slice

    def attend(self, layer: int, queries: Tensor, kv: Tensor) -> Tensor:
        """Stores kv (n, 2·K·D) and returns what queries (n, Q·D) find, (n, Q·D)."""


class LowRank(Protocol):
    """Adapters: what they add to the products of one pass."""

    def add(self, layer: int, product: str, rows: Tensor, into: Tensor) -> None:
        """Adds each row's own adapter's part to `into`."""


@dataclass(frozen=True, slots=True)
class Layer:
    attention_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Llama:
    """The weights, and the pass. Holds no state of any request."""

    def __init__(self, model: Any, tokens_max: int, few_rows_4bit: bool) -> None:
        """`model` is a Hugging Face causal model. Raises ModelUnavailable for another family."""
        config = model.config
        check_family(config)
        self.shape = shape_of(config)
        self.epsilon = float(config.rms_norm_eps)
        self.embeddings: Tensor = model.model.embed_tokens.weight.detach()
        self.norm: Tensor = model.model.norm.weight.detach()
        self.head = Linear(model.lm_head.weight.detach())
        self.layers = [_layer(module, few_rows_4bit) for module in model.model.layers]
        # Up to so many rows, a pass reads narrower weights, if there are any.
        self.narrow_rows_max = self.layers[0].down.narrow_rows_max
        self.cos, self.sin = _rotation(model, self.shape, tokens_max)
        self.parts = Parts(rotated, gated)

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.dtype

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        groups: Sequence[Attention],
        ends: Tensor,
        adapters: LowRank | None,
    ) -> Tensor:
        """Reads tokens (n,) at positions (n,); returns the logits (m, V) after tokens `ends` (m,).

        `groups` cover the tokens in order.
        """
        return self.logits(self.read(tokens, positions, groups, adapters)[ends])

    def read(
        self,
        tokens: Tensor,
        positions: Tensor,
        groups: Sequence[Attention],
        adapters: LowRank | None,
    ) -> Tensor:
        """As `__call__`; returns what `logits` wants of each token, (n, H)."""
        hidden = self.embeddings[tokens]  # (n, H)
        cos, sin = self.cos[positions], self.sin[positions]  # (n, (Q + 2 K) D)
        for index, layer in enumerate(self.layers):
            hidden = self._attention(index, layer, hidden, cos, sin, groups, adapters)
            hidden = self._mlp(index, layer, hidden, adapters)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits (m, V) after tokens of which `read` gave hidden (m, H)."""
        return self.head(self._normed(hidden, self.norm))

    def _attention(
        self,
        index: int,
        layer: Layer,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        groups: Sequence[Attention],
        adapters: LowRank | None,
    ) -> Tensor:
        normed = self._normed(hidden, layer.attention_norm)
        qkv = layer.qkv(normed)
        if adapters is not None:
            adapters.add(index, "qkv", normed, qkv)
        if layer.query_norm is not None:
            qkv = self._norm_heads(layer, qkv)
        qkv = self.parts.rotated(qkv, cos, sin, self.shape.head_size)
        queries, kv = qkv.split([self.shape.query_size, self.shape.kv_size], dim=1)
        found = [g.attend(index, queries[g.tokens], kv[g.tokens]) for g in groups]
        mixed = found[0] if len(found) == 1 else torch.cat(found)
        out = layer.out(mixed)
        if adapters is not None:
            adapters.add(index, "out", mixed, out)
        return hidden + out

    def _mlp(self, index: int, layer: Layer, hidden: Tensor, adapters: LowRank | None) -> Tensor:
        normed = self._normed(hidden, layer.mlp_norm)
        gate_up = layer.gate_up(normed)
        if adapters is not None:
            adapters.add(index, "gate_up", normed, gate_up)
        inner = self.parts.gated(gate_up)
        down = layer.down(inner)
        if adapters is not None:
            adapters.add(index, "down", inner, down)
        return hidden + down

    def _normed(self, rows: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(rows, (rows.shape[-1],), weight, self.epsilon)

    def _norm_heads(self, layer: Layer, qkv: Tensor) -> Tensor:
        assert layer.query_norm is not None and layer.key_norm is not None
        shape = self.shape
        heads = qkv.view(len(qkv), -1, shape.head_size)
        queries, keys, values = heads.split(
            [shape.query_heads, shape.key_heads, shape.key_heads], 1
        )
        queries = self._normed(queries, layer.query_norm)
        keys = self._normed(keys, layer.key_norm)
        return torch.cat([queries, keys, values], dim=1).flatten(1)


def check_family(config: PreTrainedConfig) -> None:
    """Raises ModelUnavailable for what this module would compute wrongly."""
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in FAMILIES or config.hidden_act != "silu":
        raise ModelUnavailable(
            f"The local engine does not run models of type {config.model_type}.",
            f"Use one of {', '.join(FAMILIES)}, or let a server such as vLLM run it "
            "(HEADWATER_GENERATE_ENGINE=remote).",
        )
    if rotation not in ROTATIONS:
        raise ModelUnavailable(
            f"The local engine does not know rotary positions of type {rotation}.",
            "Let a server such as vLLM run this model (HEADWATER_GENERATE_ENGINE=remote).",
        )


def shape_of(config: PreTrainedConfig) -> Shape:
    """The sizes in a Hugging Face configuration."""
    heads = int(config.num_attention_heads)
    return Shape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        inner=int(config.intermediate_size),
        query_heads=heads,
        key_heads=int(config.num_key_value_heads),
        head_size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
    )


def _layer(module: Any, few_rows_4bit: bool) -> Layer:
    attention, mlp = module.self_attn, module.mlp
    fused = [attention.q_proj, attention.k_proj, attention.v_proj]
    query_norm = getattr(attention, "q_norm", None)
    key_norm = getattr(attention, "k_norm", None)
    return Layer(
        attention_norm=module.input_layernorm.weight.detach(),
        qkv=_fused(fused, few_rows_4bit),
        query_norm=None if query_norm is None else query_norm.weight.detach(),
        key_norm=None if key_norm is None else key_norm.weight.detach(),
        out=_fused([attention.o_proj], few_rows_4bit),
        mlp_norm=module.post_attention_layernorm.weight.detach(),
        gate_up=_fused([mlp.gate_proj, mlp.up_proj], few_rows_4bit),
        down=_fused([mlp.down_proj], few_rows_4bit),
    )


def _fused(modules: Sequence[Any], few_rows_4bit: bool) -> Linear:
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    return Linear(weight, torch.cat(biases) if biases else None, few_rows_4bit)


def _rotation(model: Any, shape: Shape, tokens_max: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for whole qkv rows, (tokens_max, (Q + 2 K) D); values stay put."""
    positions = torch.arange(tokens_max, device=model.device)[None]
    cos, sin = model.model.rotary_emb(model.model.embed_tokens.weight, positions)
    cos, sin = cos[0], sin[0]  # (T, D)
    half = shape.head_size // 2
    sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
    turned = shape.query_heads + shape.key_heads
    still = shape.key_heads * shape.head_size
    return (
        torch.cat([cos.repeat(1, turned), cos.new_ones(tokens_max, still)], dim=1),
        torch.cat([sin.repeat(1, turned), sin.new_zeros(tokens_max, still)], dim=1),
    )
