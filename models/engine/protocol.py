"""What an engine is: the local one and a remote one answer to the same words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry

from schemas.errors import EventInvalid

# "error": the engine failed on this request; `Piece.error` says how.
FinishReason = Literal["stop", "length", "error"]

# {"role": "system" | "user" | "assistant", "content": text}
Message = Mapping[str, str]


TOP_LOGPROBS_MAX: Final = 20
DEFAULT_ADAPTER: Final = "default"
# The version of the model without an adapter.
BASE_VERSION: Final = "base"
METRICS_PREFIX: Final = "headwater:"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen. Raises EventInvalid for values out of range.

    - temperature 0 takes the likeliest token. top_k 0, top_p 1 and min_p 0 switch these cuts off;
      they apply in this order, min_p being a share of the likeliest token's probability.
    - repetition_penalty (1: none) divides the scores of tokens in prompt and answer, as Hugging
      Face does; frequency_penalty and presence_penalty (0: none) are subtracted for tokens in the
      answer, as OpenAI does.
    - The same seed gives the same draws, whatever else the engine does: the same text but for
      rounding.
    - `stop` strings end the text and are not part of it.
    - `logprobs` tells the log probability of each token, `top_logprobs` those of the likeliest.
    - `json_schema` (a JSON Schema, as JSON) or `json_object` (any JSON object) constrain the text:
      one that ends with finish_reason "stop" is JSON and valid under the schema.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    json_schema: str | None = None
    json_object: bool = False

    def __post_init__(self) -> None:
        constrained = self.json_object or self.json_schema is not None
        faults = {
            "max_tokens must be 1 or more": self.max_tokens < 1,
            "temperature must be 0 to 100": not 0.0 <= self.temperature <= 100.0,
            "top_p must be over 0, up to 1": not 0.0 < self.top_p <= 1.0,
            "top_k must be 0 (off) or more": self.top_k < 0,
            "min_p must be 0 (off) to 1": not 0.0 <= self.min_p <= 1.0,
            "repetition_penalty must be over 0, up to 10": not 0.0 < self.repetition_penalty <= 10,
            "frequency_penalty must be -2 to 2": not -2.0 <= self.frequency_penalty <= 2.0,
            "presence_penalty must be -2 to 2": not -2.0 <= self.presence_penalty <= 2.0,
            "seed must be 0 to 2^63 - 1": not 0 <= self.seed < 2**63,
            "stop must hold no empty string": "" in self.stop,
            f"top_logprobs must be 0 to {TOP_LOGPROBS_MAX}": not (
                0 <= self.top_logprobs <= TOP_LOGPROBS_MAX
            ),
            "top_logprobs needs logprobs": self.top_logprobs > 0 and not self.logprobs,
            "json_schema and json_object exclude each other": (
                self.json_object and self.json_schema is not None
            ),
            # A stop string would cut the JSON anywhere.
            "stop and JSON exclude each other": constrained and bool(self.stop),
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise EventInvalid(f"Sampling options: {'; '.join(found)}.", "Correct the request.")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One conversation to be continued by one assistant message.

    It runs on `model_version`, if one is named, which must be loaded; otherwise on the version of
    `adapter` that is live when it starts. Either way it keeps that version to its end.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    adapter: str = DEFAULT_ADAPTER
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token and its natural log probability, at least -9999. `raw` holds its bytes: a token may
    be part of a character, and its text then shows U+FFFD."""

    token: str
    logprob: float
    raw: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token, and the likeliest in its place (among them it, or not), likeliest first."""

    token: str
    logprob: float
    raw: bytes
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that one step added, and the counts so far (an end token counts as completion).

    Only the last piece has a `finish_reason`; its text may be empty. `logprobs`, where asked for,
    are those of all tokens chosen since the last piece but an end token, also of tokens whose text
    is held back or was cut off by a stop string.
    """

    text: str
    completion_tokens: int
    prompt_tokens: int
    finish_reason: FinishReason | None = None
    error: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    model_version: str = BASE_VERSION


class Engine(Protocol):
    """Answers many conversations together, each as a stream of text."""

    model: str
    context_tokens_max: int

    @property
    def model_version(self) -> str:
        """The live version of the default adapter."""

    async def start(self) -> None:
        """Loads and warms up. Raises ModelUnavailable."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """One piece for each step that has new text; the last, always sent, has a finish_reason.

        Closing the iterator (`contextlib.aclosing`) or cancelling its reader ends the generation
        within one step.
        Raises EventInvalid when the prompt leaves no room for an answer: at once, or, where only a
        server can tell, when first read. While it is read, raises EventInvalid for a JSON Schema
        that cannot be followed, and GenerationFailed when the engine ends before the answer is
        complete.
        """

    def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Tokens of the whole prompt, the chat template's own included."""

    async def load_adapter(self, name: str, version: str, folder: Path | None) -> None:
        """Loads the PEFT adapter in `folder`; from then on new answers for `name` use it.

        A version never changes: one that is loaded already only goes live. BASE_VERSION is the
        model without an adapter and needs no folder. Open answers go on with the version they began
        with, and the engine frees what nobody uses any more. Raises ModelUnavailable for an adapter
        that does not fit, and ModelBusy, which is one, where the same may do later. What was live
        stays so then.
        """

    async def unload_adapter(self, name: str, version: str) -> None:
        """Frees a version once no open answer uses it; if it is live, the base model is, then."""

    def pinned(self, adapter: str) -> AbstractContextManager[str]:
        """The live version of an adapter, which stays loaded for requests that name it, until the
        block ends: for several answers that must come from one version."""

    async def close(self) -> None:
        """Ends open streams with GenerationFailed and frees everything. May be called twice."""

    @property
    def metrics(self) -> CollectorRegistry:
        """What Prometheus may scrape, once it was started."""

    @property
    def running(self) -> int:
        """Requests in the batch."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
