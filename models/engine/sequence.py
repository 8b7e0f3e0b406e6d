"""One request on its way through the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from models.engine.arena import Held
from models.engine.detokenize import TextStream
from models.engine.grammar import Vocabulary
from models.engine.logprobs import token_logprob
from models.engine.prompt_lookup import PromptLookup
from models.engine.protocol import FinishReason, Piece, TokenLogprob
from models.engine.sampling import Chosen, Sampler


@dataclass(slots=True, eq=False)
class Sequence:
    """`cancelled` is the only field that another thread sets after the request was handed over.

    All times are of `time.monotonic`, in seconds.
    """

    request_id: str
    prompt: list[int]
    max_tokens: int
    sampler: Sampler
    text: TextStream
    adapter: str
    # Wanted by the request at first; fixed when it starts.
    version: str | None = None
    # Where log probabilities are asked for.
    vocabulary: Vocabulary | None = None
    cancelled: bool = False
    # Set by whoever takes the request in.
    send: Callable[[Piece], None] = field(init=False)
    # Prompt and answer so far.
    tokens: list[int] = field(default_factory=list)
    held: Held | None = None
    started: bool = False
    logprobs: list[TokenLogprob] = field(default_factory=list)
    lookup: PromptLookup = field(default_factory=PromptLookup)
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) - len(self.prompt)

    @property
    def unread(self) -> int:
        """Tokens whose keys and values are still missing: one while the request decodes."""
        return len(self.tokens) - (self.held.read if self.held is not None else 0)

    def advance(self, chosen: Chosen, ends: frozenset[int]) -> FinishReason | None:
        """Takes one token in and sends its text; why the answer is finished, if it is."""
        token = chosen.token
        self.tokens.append(token)
        ended = token in ends
        if self.vocabulary is not None and not ended:
            self.logprobs.append(token_logprob(chosen, self.vocabulary))
        full = self.completion_tokens >= self.max_tokens
        text = "" if ended else self.text.push(token)
        if (ended or full) and not self.text.stopped:
            text += self.text.finish()
        reason: FinishReason | None = "length" if full else None
        if ended or self.text.stopped:
            reason = "stop"
        if text or reason:
            self.send(self.piece(text, reason))
        return reason

    def fail(self, error: Exception) -> None:
        """Ends the stream with what went wrong."""
        self.send(self.piece("", "error", f"{type(error).__name__}: {error}"))

    def piece(self, text: str, reason: FinishReason | None = None, error: str = "") -> Piece:
        logprobs, self.logprobs = tuple(self.logprobs), []
        return Piece(
            text=text,
            completion_tokens=self.completion_tokens,
            prompt_tokens=len(self.prompt),
            model_version=self.version or "",
            finish_reason=reason,
            error=error,
            logprobs=logprobs,
        )
