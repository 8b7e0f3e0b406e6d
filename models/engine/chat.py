"""The tokenizer of a model together with its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from models.engine.protocol import Message
from schemas.errors import EventInvalid, ModelUnavailable

# Stands for an answer when a template is asked what it puts after one.
ANSWER = "An answer."


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, with a chat template. Raises ModelUnavailable."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"No tokenizer can be loaded from {folder}: {error}",
            "Name a folder that save_pretrained wrote.",
        ) from error
    if not tokenizer.chat_template:
        raise ModelUnavailable(
            f"The tokenizer in {folder} has no chat template.", "Use an instruction-tuned model."
        )
    return tokenizer


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The prompt of `messages`, up to where the answer begins. Raises EventInvalid."""
    if not messages:
        raise EventInvalid("A request holds no messages.", "Send at least one.")
    try:
        text = _render(tokenizer, messages, add_generation_prompt=True)
    except (TemplateError, KeyError, TypeError) as error:
        raise EventInvalid(
            f"The model's chat template refuses these messages: {error}",
            "Each needs a role and content; some models want user and assistant to alternate.",
        ) from error
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


def end_tokens(tokenizer: PreTrainedTokenizerBase, config: GenerationConfig) -> frozenset[int]:
    """Every token that ends an answer: the model's, the tokenizer's and the chat template's."""
    ends = config.eos_token_id
    found = set(ends if isinstance(ends, list) else [ends])
    found.add(tokenizer.eos_token_id)
    found.add(chat_end_token(tokenizer))
    return frozenset(token for token in found if token is not None)


def chat_end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template puts right after an answer, if it does."""
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
    after = _render(tokenizer, turn, add_generation_prompt=False).rpartition(ANSWER)[2].strip()
    tokens: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder
    if tokens and tokens[0] in added and added[tokens[0]].special:
        return tokens[0]
    return None


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    )
