"""What an engine is: the local one and a remote one answer to the same words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.errors import EventInvalid

# "error": the engine failed on this request; `Piece.error` says how.
FinishReason = Literal["stop", "length", "error"]

# {"role": "system" | "user" | "assistant", "content": text}
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen. Raises EventInvalid for values out of range.

    temperature 0 takes the likeliest token; top_k 0 and top_p 1 switch these cuts off; the same
    seed gives the same text, whatever else the engine does; `stop` strings end the text and are
    not part of it.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = {
            "max_tokens must be 1 or more": self.max_tokens < 1,
            "temperature must be 0 to 100": not 0.0 <= self.temperature <= 100.0,
            "top_p must be over 0, up to 1": not 0.0 < self.top_p <= 1.0,
            "top_k must be 0 (off) or more": self.top_k < 0,
            "seed must be 0 to 2^63 - 1": not 0 <= self.seed < 2**63,
            "stop must hold no empty string": "" in self.stop,
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise EventInvalid(f"Sampling options: {'; '.join(found)}.", "Correct the request.")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One conversation to be continued by one assistant message."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that one step added, and the counts so far (an end token counts as completion).

    Only the last piece has a `finish_reason`; its text may be empty.
    """

    text: str
    completion_tokens: int
    prompt_tokens: int
    finish_reason: FinishReason | None = None
    error: str = ""


class Engine(Protocol):
    """Answers many conversations together, each as a stream of text."""

    model: str
    model_version: str
    context_tokens_max: int

    async def start(self) -> None:
        """Loads and warms up. Raises ModelUnavailable."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """One piece for each step that has new text; the last, always sent, has a finish_reason.

        Closing the iterator (`contextlib.aclosing`) or cancelling its reader ends the generation
        within one step.
        Raises EventInvalid when the prompt leaves no room for an answer: at once, or, where only a
        server can tell, when first read. While it is read, raises GenerationFailed when the engine
        ends before the answer is complete.
        """

    def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the whole prompt, the chat template's own included."""

    async def close(self) -> None:
        """Ends open streams with GenerationFailed and frees everything. May be called twice."""

    @property
    def running(self) -> int:
        """Requests in the batch."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
