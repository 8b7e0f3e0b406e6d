"""An answer in the making: from a context to text, chunks and the finished record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from agents.generation.chunks import Part
from agents.generation.sampling import logprob_event, request_of_choice, sampling_params
from agents.retrieval.questions import question_text
from models.engine.protocol import DEFAULT_ADAPTER, Engine, GenerationRequest, Piece
from models.prompting import ChatMessage, build_messages, cited_passages, fit_passages
from schemas import ids, limits
from schemas.clock import now_ms
from schemas.errors import GenerationFailed, HeadwaterError
from schemas.events import (
    Alternative,
    Context,
    FinishReason,
    FoundPassage,
    Generation,
    Timings,
    TokenChunk,
    TokenLogprob,
    Usage,
)

log = logging.getLogger("headwater.generate")

# An answer is given this much of the context window before passages may take the rest.
_ANSWER_SHARE: Final = 0.25


@dataclass(slots=True)
class Choice:
    """One of a prompt's answers so far. One that nobody completes is a cancelled one."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    finish_reason: FinishReason = "cancelled"
    error: str | None = None

    def fail(self, error: str) -> None:
        self.finish_reason = "error"
        self.error = error[: limits.REASON_CHARS_MAX]

    def alternative(self) -> Alternative:
        text = self.text[: limits.ANSWER_CHARS_MAX]
        return Alternative(text, self.finish_reason, self.logprobs, self.error)


@dataclass(slots=True)
class Draft:
    """What is known of a prompt's answers; `attempt` is the Unix millisecond at which it began."""

    context: Context
    model: str
    model_version: str
    attempt: int
    passages: list[FoundPassage] = field(default_factory=list)
    choices: list[Choice] = field(init=False)
    first_token_ms: int | None = None

    def __post_init__(self) -> None:
        self.choices = [Choice() for _ in range(self.context.prompt.sampling.n)]

    @property
    def generation_id(self) -> str:
        return ids.generation_id(self.context.prompt_id)

    def finished(self) -> Generation:
        """The record of the answers as they stand."""
        context, first = self.context, self.choices[0]
        return Generation(
            generation_id=self.generation_id,
            prompt_id=context.prompt_id,
            text=first.text,
            finish_reason=first.finish_reason,
            model=self.model,
            model_version=self.model_version,
            attempt=self.attempt,
            passages=self.passages,
            cited=cited_passages(first.text, [passage.text for passage in self.passages]),
            usage=Usage(
                first.usage.prompt_tokens,
                sum(choice.usage.completion_tokens for choice in self.choices),
            ),
            timings=Timings(
                prompted_ms=context.prompted_ms,
                retrieved_ms=context.retrieved_ms,
                started_ms=self.attempt,
                finished_ms=now_ms(),
                first_token_ms=self.first_token_ms,
            ),
            user_id=context.prompt.user_id,
            conversation_id=context.prompt.conversation_id,
            error=first.error,
            logprobs=first.logprobs,
            alternatives=[choice.alternative() for choice in self.choices[1:]],
            choice=context.choice,
            prompt_chars=len(question_text(context.prompt)),
            prompt_sketch=context.prompt_sketch,
        )

    def chunk(self, index: int, part: Part) -> TokenChunk:
        """A piece of one of the answers."""
        return TokenChunk(
            generation_id=self.generation_id,
            prompt_id=self.context.prompt_id,
            attempt=self.attempt,
            index=index,
            text=part.text,
            model_version=self.model_version,
            conversation_id=self.context.prompt.conversation_id,
            passages=self.passages if index == 0 else [],
            choice=part.choice,
            logprobs=list(part.logprobs),
        )


def last_chunk(generation: Generation, attempt: int, index: int, part: Part) -> TokenChunk:
    """The piece that ends all answers: it carries the finished record."""
    return TokenChunk(
        generation_id=generation.generation_id,
        prompt_id=generation.prompt_id,
        attempt=attempt,
        index=index,
        text=part.text,
        model_version=generation.model_version,
        conversation_id=generation.conversation_id,
        finish_reason=generation.finish_reason,
        usage=generation.usage,
        generation=generation,
        choice=part.choice,
        logprobs=list(part.logprobs),
    )


async def write_answer(
    draft: Draft, engine: Engine, passages_max: int, emit: Callable[[Part], None]
) -> None:
    """Let the engine answer; text goes to `emit` as it comes. Cancelling it frees the engine.

    What the engine refuses or fails at ends the choice with finish_reason `error`. Raises
    GenerationFailed when the engine itself has ended.
    """
    try:
        request = make_request(draft, engine, passages_max)
    except GenerationFailed:
        raise
    except Exception as error:
        for choice in draft.choices:
            choice.fail(_reason(error, draft))
        return
    if len(draft.choices) == 1:
        # On the version that is live when it starts.
        await _write_choices(draft, engine, request, emit)
        return
    # They start one by one, and a swap between them must not part them.
    with engine.pinned(request.adapter) as version:
        await _write_choices(draft, engine, replace(request, model_version=version), emit)


async def _write_choices(
    draft: Draft, engine: Engine, request: GenerationRequest, emit: Callable[[Part], None]
) -> None:
    writing = [
        asyncio.create_task(_write_choice(draft, number, engine, request, emit))
        for number in range(len(draft.choices))
    ]
    try:
        await asyncio.gather(*writing)
    finally:
        # One that ends by an exception, or is cancelled, takes the others with it.
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)


async def _write_choice(
    draft: Draft,
    number: int,
    engine: Engine,
    request: GenerationRequest,
    emit: Callable[[Part], None],
) -> None:
    choice = draft.choices[number]
    try:
        async with aclosing(engine.stream(request_of_choice(request, number))) as pieces:
            async for piece in pieces:
                part = _take(draft, number, piece)
                if part.text or part.logprobs:
                    emit(part)
                if len(choice.text) == limits.ANSWER_CHARS_MAX:
                    break
    except GenerationFailed:
        # The engine itself has ended: this is no answer, and the next worker will give one.
        raise
    except Exception as error:
        choice.fail(_reason(error, draft))


def _reason(error: Exception, draft: Draft) -> str:
    if isinstance(error, HeadwaterError):
        return str(error)
    # One prompt that nobody foresaw must not end the worker again at every replay (law 2).
    log.error("cannot answer %s", draft.context.prompt_id, exc_info=error)
    return f"{type(error).__name__}: {error}"


def _take(draft: Draft, number: int, piece: Piece) -> Part:
    """Add a piece to a choice; returns as much of its text as the limit leaves room for."""
    choice = draft.choices[number]
    if piece.completion_tokens and draft.first_token_ms is None:
        draft.first_token_ms = now_ms()
        # Known only now: a swap may have come while the request waited.
        draft.model_version = piece.model_version
    choice.usage = Usage(piece.prompt_tokens, piece.completion_tokens)
    text = piece.text[: limits.ANSWER_CHARS_MAX - len(choice.text)]
    choice.text += text
    logprobs = tuple(logprob_event(logprob) for logprob in piece.logprobs)
    choice.logprobs += logprobs
    if piece.finish_reason is not None:
        choice.finish_reason = piece.finish_reason
        choice.error = piece.error[: limits.REASON_CHARS_MAX] or None
    elif len(choice.text) == limits.ANSWER_CHARS_MAX:
        choice.finish_reason = "length"
    return Part(text, number, logprobs)


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
    variant = draft.context.choice
    return GenerationRequest(
        request_id=draft.generation_id,
        messages=build_messages(messages, texts[:fitting]),
        sampling=sampling_params(prompt.sampling, draft.context.prompt_id),
        adapter=(variant and variant.adapter) or DEFAULT_ADAPTER,
    )
