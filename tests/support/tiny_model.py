"""The tiny model by the name that tests know it by."""

from infra.fleet.tiny_model import CHAT_TEMPLATE, build_tiny_model, build_tiny_tokenizer

__all__ = ["CHAT_TEMPLATE", "build_tiny_model", "build_tiny_tokenizer"]
