"""An answer in the making: from a context to text, chunks and the finished record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from models.engine.protocol import Engine, GenerationRequest, Piece, SamplingParams
from models.prompting import ChatMessage, build_messages, cited_passages, fit_passages
from schemas import ids, limits
from schemas.errors import GenerationFailed, HeadwaterError
from schemas.events import (
    Context,
    FinishReason,
    FoundPassage,
    Generation,
    Sampling,
    Timings,
    TokenChunk,
    Usage,
)

log = logging.getLogger("headwater.generate")

# An answer is given this much of the context window before passages may take the rest.
_ANSWER_SHARE: Final = 0.25


@dataclass(slots=True)
class Draft:
    """What is known of an answer so far; `attempt` is the Unix millisecond at which it began.

    A draft that nobody completes is a cancelled one.
    """

    context: Context
    model: str
    model_version: str
    attempt: int
    passages: list[FoundPassage] = field(default_factory=list)
    text: str = ""
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    finish_reason: FinishReason = "cancelled"
    error: str | None = None
    first_token_ms: int | None = None

    @property
    def generation_id(self) -> str:
        return ids.generation_id(self.context.prompt_id)

    def finished(self) -> Generation:
        """The record of the answer as it stands."""
        context = self.context
        return Generation(
            generation_id=self.generation_id,
            prompt_id=context.prompt_id,
            text=self.text,
            finish_reason=self.finish_reason,
            model=self.model,
            model_version=self.model_version,
            attempt=self.attempt,
            passages=self.passages,
            cited=cited_passages(self.text, [passage.text for passage in self.passages]),
            usage=self.usage,
            timings=Timings(
                prompted_ms=context.prompted_ms,
                retrieved_ms=context.retrieved_ms,
                started_ms=self.attempt,
                finished_ms=now_ms(),
                first_token_ms=self.first_token_ms,
            ),
            user_id=context.prompt.user_id,
            conversation_id=context.prompt.conversation_id,
            error=self.error,
        )

    def chunk(self, index: int, text: str) -> TokenChunk:
        """A piece of the answer."""
        return TokenChunk(
            generation_id=self.generation_id,
            prompt_id=self.context.prompt_id,
            attempt=self.attempt,
            index=index,
            text=text,
            model_version=self.model_version,
            conversation_id=self.context.prompt.conversation_id,
            passages=self.passages if index == 0 else [],
        )


def last_chunk(generation: Generation, attempt: int, index: int, text: str) -> TokenChunk:
    """The piece that ends an answer: it carries the finished record."""
    return TokenChunk(
        generation_id=generation.generation_id,
        prompt_id=generation.prompt_id,
        attempt=attempt,
        index=index,
        text=text,
        model_version=generation.model_version,
        conversation_id=generation.conversation_id,
        finish_reason=generation.finish_reason,
        usage=generation.usage,
        generation=generation,
    )


async def write_answer(
    draft: Draft, engine: Engine, passages_max: int, emit: Callable[[str], None]
) -> None:
    """Let the engine answer; text goes to `emit` as it comes. Cancelling it frees the engine.

    What the engine refuses or fails at ends the draft with finish_reason `error`. Raises
    GenerationFailed when the engine itself has ended.
    """
    try:
        request = make_request(draft, engine, passages_max)
        async with aclosing(engine.stream(request)) as pieces:
            async for piece in pieces:
                if text := _take(draft, piece):
                    emit(text)
                if len(draft.text) == limits.ANSWER_CHARS_MAX:
                    break
    except GenerationFailed:
        # The engine itself has ended: this is no answer, and the next worker will give one.
        raise
    except HeadwaterError as error:
        draft.finish_reason = "error"
        draft.error = str(error)[: limits.REASON_CHARS_MAX]
    except Exception as error:
        # One prompt that nobody foresaw must not end the worker again at every replay (law 2).
        log.exception("cannot answer %s", draft.context.prompt_id)
        draft.finish_reason = "error"
        draft.error = f"{type(error).__name__}: {error}"[: limits.REASON_CHARS_MAX]


def _take(draft: Draft, piece: Piece) -> str:
    """Add a piece to the draft; returns as much of its text as the limit leaves room for."""
    if piece.completion_tokens and draft.first_token_ms is None:
        draft.first_token_ms = now_ms()
    draft.usage = Usage(piece.prompt_tokens, piece.completion_tokens)
    text = piece.text[: limits.ANSWER_CHARS_MAX - len(draft.text)]
    draft.text += text
    if piece.finish_reason is not None:
        draft.finish_reason = piece.finish_reason
        draft.error = piece.error[: limits.REASON_CHARS_MAX] or None
    elif len(draft.text) == limits.ANSWER_CHARS_MAX:
        draft.finish_reason = "length"
    return text


def make_request(draft: Draft, engine: Engine, passages_max: int) -> GenerationRequest:
    """The engine's request with the best passages, as many as fit; sets `draft.passages`."""
    prompt = draft.context.prompt
    messages: list[ChatMessage] = [
        {"role": message.role, "content": message.content} for message in prompt.messages
    ]
    answer_tokens = min(prompt.sampling.max_tokens, int(engine.context_tokens_max * _ANSWER_SHARE))
    texts = [passage.text for passage in draft.context.passages[:passages_max]]
    fitting = fit_passages(
        messages, texts, engine.count_tokens, engine.context_tokens_max - answer_tokens - 1
    )
    draft.passages = draft.context.passages[:fitting]
    return GenerationRequest(
        request_id=draft.generation_id,
        messages=build_messages(messages, texts[:fitting]),
        sampling=sampling_params(prompt.sampling, draft.context.prompt_id),
    )


def sampling_params(sampling: Sampling, prompt_id: str) -> SamplingParams:
    """The engine's own form; without a seed the prompt's id gives one, so that replays agree."""
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=ids.seed(prompt_id) if sampling.seed is None else sampling.seed,
        stop=tuple(sampling.stop),
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000
