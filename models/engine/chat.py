"""The tokenizer of a model together with its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from models.engine.control_tokens import encode_contents
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
    """The prompt of `messages`, up to where the answer begins. Raises EventInvalid.

    Its control tokens are the chat template's: messages that spell some are encoded as text.
    """
    if not messages:
        raise EventInvalid("A request holds no messages.", "Send at least one.")

    def render(contents: Sequence[str]) -> str:
        pairs = zip(messages, contents, strict=True)
        filled = [{**message, "content": content} for message, content in pairs]
        return _render(tokenizer, filled, add_generation_prompt=True)

    try:
        # JSON may hold lone surrogates, which the tokenizer refuses.
        contents = [m["content"].encode("utf-8", "replace").decode() for m in messages]
        return encode_contents(tokenizer, render, contents)
    except (TemplateError, KeyError, TypeError) as error:
        raise EventInvalid(
            f"The model's chat template refuses these messages: {error}",
            "Each needs a role and content; some models want user and assistant to alternate.",
        ) from error


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
