"""`/v1/chat/completions`, `/v1/completions` and `/v1/models`."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from agents.gateway.access.caller import Called, Caller, Shared
from agents.gateway.errors import ApiError, ErrorAnswer
from agents.gateway.openai.answers import ChatAnswer, Model, Models, TextAnswer
from agents.gateway.openai.asking import Asking, first_position
from agents.gateway.openai.event_stream import EventStream, gone
from agents.gateway.openai.positions import Signer
from agents.gateway.openai.prompts import leaves_options, messages_of, retrieval_of, sampling_of
from agents.gateway.openai.requests import ChatRequest, CompletionRequest
from agents.gateway.openai.shapes import Shape
from agents.gateway.state import Gateway
from schemas import ids
from schemas.headers import trace_id

router = APIRouter(prefix="/v1", tags=["OpenAI"])

LastEventId = Annotated[
    str | None,
    Header(
        max_length=2_000,
        description="resumes a broken stream: the id of the last event that came; the request "
        "is the same as before",
    ),
]
REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorAnswer, "description": said}
    for status, said in {
        400: "the request is wrong",
        401: "the API key is missing or unknown",
        403: "not allowed",
        404: "not there",
        409: "the answer was cancelled, or worded anew",
        413: "the request is too large",
        429: "too many requests, or the quota is used",
        503: "the river does not answer",
    }.items()
}


def _answered(model: type[Any]) -> dict[int | str, dict[str, Any]]:
    stream: dict[str, Any] = {"text/event-stream": {}}
    return {**REFUSED, 200: {"model": model, "content": stream, "description": "the answer"}}


@router.post("/chat/completions", response_model=None, responses=_answered(ChatAnswer))
async def chat(
    body: ChatRequest,
    request: Request,
    caller: Called,
    gateway: Shared,
    last_event_id: LastEventId = None,
) -> Response:
    """Answer a conversation, at once or as server-sent events."""
    return await _answer(body, request, caller, gateway, last_event_id)


@router.post("/completions", response_model=None, responses=_answered(TextAnswer))
async def completions(
    body: CompletionRequest,
    request: Request,
    caller: Called,
    gateway: Shared,
    last_event_id: LastEventId = None,
) -> Response:
    """Answer one prompt, at once or as server-sent events."""
    return await _answer(body, request, caller, gateway, last_event_id)


@router.get("/models", response_model=Models, responses=REFUSED)
async def models(caller: Called, gateway: Shared) -> Models:
    """Names that requests may use: the river's own, then the embedder's."""
    return Models(data=[Model(id=name) for name in _models(gateway)])


@router.get("/models/{model:path}", response_model=Model, responses=REFUSED)
async def model(model: str, caller: Called, gateway: Shared) -> Model:
    """One of these names."""
    check_model(model, _models(gateway))
    return Model(id=model)


def check_model(name: str, known: list[str]) -> None:
    """Raises ApiError (404) for a name that nothing is called by."""
    if name not in known:
        message = f"There is no model {name!r} here; there is {', '.join(known)}."
        raise ApiError(404, message, "model_not_found", "model")


def _models(gateway: Gateway) -> list[str]:
    return [*gateway.settings.models, gateway.vectors.name]


async def _answer(
    body: ChatRequest | CompletionRequest,
    request: Request,
    caller: Caller,
    gateway: Gateway,
    last_event_id: str | None,
) -> Response:
    check_model(body.model, gateway.settings.models)
    if caller.tokens_per_day is not None and not last_event_id:
        await gateway.quotas.check(caller.name, caller.tokens_per_day)
    with ExitStack() as stack:
        stack.enter_context(gateway.answering())
        if last_event_id:
            asking = await _resume(body, caller, gateway, last_event_id)
        else:
            asking = await _ask(body, caller, gateway, request.headers.get("traceparent"))
        if body.stream:
            return _stream(asking, gateway, caller, stack.pop_all())
        return await _whole(asking, request, gateway, caller)


async def _ask(
    body: ChatRequest | CompletionRequest, caller: Caller, gateway: Gateway, trace: str | None
) -> Asking:
    settings = gateway.settings
    sampling = sampling_of(body, settings.tokens_default)
    answer = await gateway.client.ask(
        messages_of(body),
        sampling=sampling,
        retrieval=retrieval_of(body, settings.passages),
        conversation_id=body.conversation_id,
        user_id=caller.user_id(body.user),
        prompt_id=ids.new_id("chatcmpl" if isinstance(body, ChatRequest) else "cmpl"),
        silence_s_max=settings.silence_s,
        adapt=leaves_options(body),
        # Callers' own traces go on here.
        traceparent=trace if trace_id(trace) else None,
    )
    position = first_position(answer, sampling.n)
    shape = _shape(body, answer.prompt_id, position.created_s)
    signer = _signer(body, caller, gateway)
    return Asking(answer, shape, sampling.n, signer, position, False, body.counts_usage)


async def _resume(
    body: ChatRequest | CompletionRequest, caller: Caller, gateway: Gateway, event_id: str
) -> Asking:
    signer = _signer(body, caller, gateway)
    position = signer.decode(event_id)
    gateway.departures.resumed(position.prompt_id)
    answer = await gateway.client.resume(
        position.prompt_id,
        position.place,
        gateway.settings.silence_s,
        prompted=position.delivered,
    )
    shape = _shape(body, position.prompt_id, position.created_s)
    choices = len(position.sent)
    return Asking(answer, shape, choices, signer, position, True, body.counts_usage)


def _stream(asking: Asking, gateway: Gateway, caller: Caller, open_stack: ExitStack) -> Response:
    def left() -> None:
        gateway.departures.left(asking.answer.prompt_id)

    async def events() -> Any:
        with open_stack:
            async for event in asking.events():
                yield event

    return EventStream(events(), left, gateway.pings, caller.headers)


async def _whole(asking: Asking, request: Request, gateway: Gateway, caller: Caller) -> Response:
    """Wait for all of it; who leaves meanwhile does not want it."""
    tasks = [asyncio.ensure_future(step) for step in (asking.whole(), gone(request.receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            await gateway.client.cancel(asking.answer.prompt_id)
            return Response(status_code=499)
        content = msgspec.json.encode(tasks[0].result())
        return Response(content, headers=caller.headers, media_type="application/json")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _shape(body: ChatRequest | CompletionRequest, completion_id: str, created_s: int) -> Shape:
    return Shape(isinstance(body, ChatRequest), completion_id, created_s, body.model)


def _signer(body: ChatRequest | CompletionRequest, caller: Caller, gateway: Gateway) -> Signer:
    return Signer(gateway.secret, caller.name, body.model_dump_json().encode())
