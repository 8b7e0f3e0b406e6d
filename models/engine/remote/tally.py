"""What the chunks of an answer add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from models.engine.protocol import BASE_VERSION, FinishReason, Piece, TokenLogprob, TopLogprob
from models.engine.remote.chunks import ChatChunk, Choice, ChosenToken, Token
from models.engine.remote.faults import ServerFault

_REASONS: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length"}
# As the protocol wants it; OpenAI writes this number, too.
_LOGPROB_MIN: Final = -9999.0


@dataclass(slots=True)
class Tally:
    """An answer so far. Counts are the server's where it gives any, else chunks with text."""

    prompt_tokens: int
    top_logprobs: int = 0
    model_version: str = BASE_VERSION
    completion_tokens: int = 0
    reason: str | None = None
    begun: bool = False
    # Of tokens whose text has not come yet.
    _told: list[TokenLogprob] = field(default_factory=list, init=False)

    def add(self, chunk: ChatChunk) -> Piece | None:
        """The piece that a chunk adds, if it has text."""
        text = "".join(choice.delta.content or "" for choice in chunk.choices)
        told = [token for choice in chunk.choices for token in _chosen(choice)]
        for choice in chunk.choices:
            self.reason = choice.finish_reason or self.reason
        self._told += (_logprob(token, self.top_logprobs) for token in told)
        if chunk.usage is not None:
            self.prompt_tokens = chunk.usage.prompt_tokens
            self.completion_tokens = chunk.usage.completion_tokens
        elif text or told:
            self.completion_tokens += len(told) or 1
        self.begun = self.begun or bool(text or told)
        return self._piece(text) if text else None

    def last(self) -> Piece:
        """The piece that ends the answer. Raises ServerFault when the server said no end."""
        if self.reason is None:
            raise ServerFault("The server broke off before the answer was complete.")
        if self.reason not in _REASONS:
            return self.failed(f"The server ended the answer with {self.reason!r}.")
        return self._piece("", _REASONS[self.reason])

    def failed(self, error: object) -> Piece:
        """The last piece of an answer that failed."""
        return self._piece("", "error", str(error))

    def _piece(self, text: str, reason: FinishReason | None = None, error: str = "") -> Piece:
        told, self._told = tuple(self._told), []
        return Piece(
            text,
            self.completion_tokens,
            self.prompt_tokens,
            reason,
            error,
            told,
            self.model_version,
        )


def _chosen(choice: Choice) -> list[ChosenToken]:
    """The tokens that a chunk tells of, but for an end token, which only vLLM tells of."""
    tokens = (choice.logprobs.content if choice.logprobs else None) or []
    said = choice.stop_reason
    ended = choice.finish_reason == "stop" and (said is None or isinstance(said, int))
    return tokens[:-1] if ended else tokens


def _logprob(token: ChosenToken, top_logprobs: int) -> TokenLogprob:
    # vLLM puts the chosen one first, llama-cpp-python adds it where it is missing.
    likeliest = sorted(token.top_logprobs, key=lambda top: -top.logprob)[:top_logprobs]
    return TokenLogprob(*_told(token), tuple(TopLogprob(*_told(top)) for top in likeliest))


def _told(token: Token) -> tuple[str, float, bytes]:
    raw = token.token.encode() if token.bytes is None else bytes(token.bytes)
    return raw.decode(errors="replace"), max(token.logprob, _LOGPROB_MIN), raw
