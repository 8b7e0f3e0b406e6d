"""From a request to its answer: prompts are asked, or read on, and their answers sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from itertools import accumulate

import msgspec
from fastapi import Request
from starlette.responses import Response

from agents.gateway.access.caller import Caller
from agents.gateway.errors import ApiError
from agents.gateway.openai.asking import Asking, first_position
from agents.gateway.openai.batch import Batch
from agents.gateway.openai.event_stream import EventStream, gone
from agents.gateway.openai.positions import Position, Signer
from agents.gateway.openai.prompts import (
    conversations_of,
    leaves_options,
    retrieval_of,
    sampling_of,
)
from agents.gateway.openai.requests import ChatRequest, CompletionRequest
from agents.gateway.openai.shapes import Shape
from agents.gateway.state import Gateway
from schemas import ids
from schemas.headers import trace_id
from streams.answer import Answer

Body = ChatRequest | CompletionRequest


async def answer(
    body: Body, request: Request, caller: Caller, gateway: Gateway, last_event_id: str | None
) -> Response:
    """The response, whole or a stream. Raises ApiError, and as `Client.ask` and `Batch.whole`."""
    _check_prompts(len(conversations_of(body)), caller, gateway)
    if caller.tokens_per_day is not None and not last_event_id:
        await gateway.quotas.check(caller.name, caller.tokens_per_day)
    with ExitStack() as stack:
        for _ in conversations_of(body):
            stack.enter_context(gateway.answering())
        signer = Signer(
            gateway.secret, caller.name, body.model_dump_json(exclude_unset=True).encode()
        )
        if last_event_id:
            askings = await _resume(body, signer, gateway, last_event_id)
        else:
            askings = await _ask(body, caller, gateway, request.headers.get("traceparent"))
        batch = Batch(askings, signer, body.counts_usage)
        if body.stream:
            return _stream(batch, gateway, caller, stack.pop_all())
        return await _whole(batch, request, gateway, caller)


def _check_prompts(count: int, caller: Caller, gateway: Gateway) -> None:
    """Raises ApiError (400) for more prompts than could ever be answered together."""
    most = min(gateway.settings.requests_open_max, caller.requests_per_minute)
    if count > most:
        message = f"{count} prompts are too many for one request of this key: {most} at most."
        raise ApiError(400, message, "invalid_request", "prompt")


async def _ask(body: Body, caller: Caller, gateway: Gateway, trace: str | None) -> list[Asking]:
    """All prompts of a request; none is left behind where one cannot be asked."""
    sampling = sampling_of(body, gateway.settings.tokens_default)
    conversations, per_minute = conversations_of(body), caller.requests_per_minute
    if (count := len(conversations)) > 1:
        # With the request, one of them was counted.
        caller.headers.update(gateway.limits.take(caller.name, per_minute, count, counted=1))
    answers: list[Answer] = []
    try:
        for messages in conversations:
            answers.append(
                await gateway.client.ask(
                    messages,
                    sampling=sampling,
                    retrieval=retrieval_of(body, gateway.settings.passages),
                    conversation_id=body.conversation_id,
                    user_id=caller.user_id(body.user),
                    prompt_id=ids.new_id("chatcmpl" if isinstance(body, ChatRequest) else "cmpl"),
                    silence_s_max=gateway.settings.silence_s,
                    adapt=leaves_options(body),
                    # Callers' own traces go on here.
                    traceparent=trace if trace_id(trace) else None,
                )
            )
    except BaseException:
        for asked in answers:
            gateway.cancel(asked.prompt_id)
        raise
    return _askings(body, answers, [first_position(one, sampling.n) for one in answers], False)


async def _resume(body: Body, signer: Signer, gateway: Gateway, event_id: str) -> list[Asking]:
    positions = signer.decode(event_id)
    answers: list[Answer] = []
    try:
        for position in positions:
            answers.append(
                await gateway.client.resume(
                    position.prompt_id,
                    position.place,
                    gateway.settings.silence_s,
                    prompted=position.delivered,
                )
            )
    except BaseException:
        # Other gateways were told that these are read here, and leave them alone.
        for taken in answers:
            gateway.departures.came(taken)
            gateway.departures.left(taken)
        raise
    return _askings(body, answers, positions, True)


def _askings(
    body: Body, answers: Sequence[Answer], positions: Sequence[Position], resumed: bool
) -> list[Asking]:
    """The first prompt's id and time are those of the whole answer."""
    first, chat = positions[0], isinstance(body, ChatRequest)
    numbers = accumulate((len(position.sent) for position in positions), initial=0)
    return [
        Asking(one, Shape(chat, first.prompt_id, first.created_s, body.model, n), position, resumed)
        for one, position, n in zip(answers, positions, numbers, strict=False)
    ]


def _stream(batch: Batch, gateway: Gateway, caller: Caller, open_stack: ExitStack) -> Response:
    answers = [asking.answer for asking in batch.askings]

    def left() -> None:
        for one in answers:
            gateway.departures.left(one)

    async def events() -> AsyncIterator[bytes]:
        with open_stack:
            async for event in batch.events():
                yield event

    for one in answers:
        gateway.departures.came(one)
    return EventStream(events(), left, gateway.pings, caller.headers)


async def _whole(batch: Batch, request: Request, gateway: Gateway, caller: Caller) -> Response:
    """Wait for all of it; who leaves meanwhile does not want it."""
    tasks = [asyncio.ensure_future(step) for step in (batch.whole(), gone(request.receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return Response(status_code=499)
        content = msgspec.json.encode(tasks[0].result())
        return Response(content, headers=caller.headers, media_type="application/json")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for prompt_id in batch.unfinished:
            gateway.cancel(prompt_id)
