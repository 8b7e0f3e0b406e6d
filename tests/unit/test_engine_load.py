import pytest
from transformers import LlamaConfig, MistralConfig, Qwen3NextConfig

from models.engine.load import context_limit
from schemas.errors import ModelUnavailable


def test_the_model_bounds_the_context() -> None:
    assert context_limit(LlamaConfig(max_position_embeddings=4096)) == 4096


def test_a_sliding_window_bounds_the_context() -> None:
    assert context_limit(MistralConfig(max_position_embeddings=4096, sliding_window=512)) == 512
    assert context_limit(MistralConfig(max_position_embeddings=4096, sliding_window=None)) == 4096


def test_a_model_with_other_layers_than_attention_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="linear_attention"):
        context_limit(Qwen3NextConfig())
