"""Counting the tokens of a prompt whose tokenizer is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.engine.protocol import Message
from models.engine.remote.options import RemoteEngineOptions
from schemas.errors import EventInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# English takes 4 to 5 bytes a token, code and other languages about 3: rather too many tokens than
# passages for which the server has no room.
_BYTES_PER_TOKEN: Final = 3
# The role and the marks that a chat template puts around a message.
_TOKENS_PER_MESSAGE: Final = 8


class TokenCounter:
    """Exact with a tokenizer, else an estimate."""

    def __init__(self, options: RemoteEngineOptions) -> None:
        """Raises ModelUnavailable."""
        self._tokenizer: PreTrainedTokenizerBase | None = None
        if options.tokenizer:
            # Imported late: transformers takes seconds, and few need it here.
            from models.engine.chat import load_tokenizer
            from models.weights import resolve_model

            self._tokenizer = load_tokenizer(resolve_model(options.tokenizer, options.cache_dir))

    def count(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the whole prompt. Raises EventInvalid."""
        if not messages:
            raise EventInvalid("A request holds no messages.", "Send at least one.")
        if self._tokenizer is None:
            sizes = (len(message["content"].encode()) for message in messages)
            return sum(size // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE for size in sizes)
        from models.engine.chat import encode_chat

        return len(encode_chat(self._tokenizer, messages))

    def room(self, count: int, context_tokens_max: int) -> int | None:
        """What an exact count leaves of the context window; None for an estimate.

        Raises EventInvalid when it leaves nothing.
        """
        if self._tokenizer is None:
            return None
        if count >= context_tokens_max:
            raise EventInvalid(
                f"The prompt has {count} tokens; at most {context_tokens_max - 1} are taken here.",
                "Shorten the messages, ask for fewer passages, or raise context_tokens_max.",
            )
        return context_tokens_max - count
