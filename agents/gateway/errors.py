"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from schemas import errors

log = logging.getLogger("headwater.gateway")

_MESSAGE_CHARS_MAX: Final = 2_000


class ErrorBody(BaseModel):
    """What went wrong; `param` names the field, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """OpenAI's envelope of an error."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The envelope, as `ErrorAnswer` describes it."""
        return {
            "error": {
                "message": self.message[:_MESSAGE_CHARS_MAX],
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }


class AnswerChanged(errors.HeadwaterError):
    """Another worker took an answer over and words it differently: what was sent is void."""


class AnswerCancelled(errors.HeadwaterError):
    """Somebody cancelled the prompt."""


_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_FRAMEWORKS: Final = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
# What of ours becomes which status and code; the first that fits.
_OURS: Final[tuple[tuple[type[errors.HeadwaterError], int, str], ...]] = (
    (errors.RecordTooLarge, 413, "request_too_large"),
    (errors.EventInvalid, 400, "invalid_request"),
    (errors.GenerationFailed, 400, "generation_failed"),
    (AnswerCancelled, 409, "cancelled"),
    (AnswerChanged, 409, "answer_changed"),
    (errors.AnswerTimeout, 503, "timeout"),
    (errors.HeadwaterError, 503, "unavailable"),
)
_RETRY_AFTER: Final = {"Retry-After": "1"}


def as_api_error(error: Exception) -> ApiError:
    """What a caller is told of an error; foreign ones tell nothing of our insides."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        code = _FRAMEWORKS.get(error.status_code)
        return ApiError(error.status_code, str(error.detail), code, headers=error.headers)
    for kind, status, code in _OURS:
        if isinstance(error, kind):
            headers = _RETRY_AFTER if status == 503 else None
            return ApiError(status, str(error), code, headers=headers)
    log.error("a request failed", exc_info=error)
    return ApiError(500, "The gateway failed at this request; its log says why.", "internal")


def error_response(error: Exception) -> Response:
    """The HTTP answer for any error."""
    found = as_api_error(error)
    # ASCII: what a caller sent may hold half a surrogate pair.
    content = json.dumps(found.body()).encode()
    return Response(content, found.status, found.headers, "application/json")


def handle_errors(app: FastAPI) -> None:
    """Let an app answer with OpenAI's shape whatever goes wrong."""

    async def handle(request: Request, error: Exception) -> Response:
        response = error_response(error)
        if response.status_code == 405:
            # The framework names those of the first route only (RFC 9110, section 10.2.1).
            response.headers["Allow"] = ", ".join(_methods(app, request))
        return response

    for kind in (ApiError, RequestValidationError, HTTPException, errors.HeadwaterError, Exception):
        app.add_exception_handler(kind, handle)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """All that the routes of a request's path take."""
    matching = (
        route
        for route in app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    return sorted({method for route in matching for method in route.methods or ()})


def _invalid(error: RequestValidationError) -> ApiError:
    """The first field that is wrong, named as the caller wrote it."""
    found = error.errors()[0]
    where, *loc = found["loc"]
    if where == "body":
        loc = list(_written(loc, error.body, found["type"] == "missing"))
    place = ".".join(map(str, loc))
    said = str(found["msg"])
    return ApiError(400, f"{place}: {said}" if place else said, "invalid_request", place or None)


def _written(loc: Sequence[str | int], body: Any, missing: bool) -> Iterator[str | int]:
    """The steps that the caller's body has; the others name the kinds that a field may be of."""
    for part in loc:
        if isinstance(body, dict) and (part in body or missing):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
        else:
            return
        yield part
