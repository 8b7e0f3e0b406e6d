"""`/v1/chat/completions`, `/v1/completions` and `/v1/models`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from agents.gateway.access.caller import Called, Shared
from agents.gateway.errors import ApiError, ErrorAnswer
from agents.gateway.openai.answering import answer
from agents.gateway.openai.answers import ChatAnswer, Model, Models, TextAnswer
from agents.gateway.openai.requests import ChatRequest, CompletionRequest
from agents.gateway.state import Gateway

router = APIRouter(prefix="/v1", tags=["OpenAI"])

LastEventId = Annotated[
    str | None,
    Header(
        max_length=8_000,
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
    check_model(body.model, gateway.settings.models)
    return await answer(body, request, caller, gateway, last_event_id)


@router.post("/completions", response_model=None, responses=_answered(TextAnswer))
async def completions(
    body: CompletionRequest,
    request: Request,
    caller: Called,
    gateway: Shared,
    last_event_id: LastEventId = None,
) -> Response:
    """Answer one prompt, or each of several, at once or as server-sent events."""
    check_model(body.model, gateway.settings.models)
    return await answer(body, request, caller, gateway, last_event_id)


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
