"""What is refused before it is read: bodies that are too large, and foreign names of this host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.gateway.errors import ApiError, error_response

_DRAINED: Final = 8
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class BodyLimit:
    """Counts a request's bytes as they come, whatever it announced."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._bytes_max:
            await self._drain(receive)
            await error_response(self._error())(scope, receive, send)
            return
        came = 0

        async def counting() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._bytes_max:
                if message.get("more_body", False):
                    await self._drain(receive)
                raise self._error()
            return message

        await self._app(scope, counting, send)

    async def _drain(self, receive: Receive) -> None:
        """Read on in vain for a while: who still sends would not see the answer."""
        came, more = 0, True
        while more and came < _DRAINED * self._bytes_max:
            message = await receive()
            came += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    def _error(self) -> HTTPException:
        """Of a kind that the framework passes on from the reading of a body."""
        # What may not have been read would be taken for the next request.
        headers = {"Connection": "close"}
        return HTTPException(413, f"A request may have {self._bytes_max:,} bytes.", headers)


class KnownHost:
    """Without API keys only names of this machine are answered.

    A web page can make its own name lead here (DNS rebinding), but cannot change the Host header.
    """

    def __init__(self, app: ASGIApp, keys_required: Callable[[], bool]) -> None:
        self._app = app
        self._keys_required = keys_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._keys_required():
            host = Headers(scope=scope).get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in LOOPBACK:
                error = ApiError(
                    403, "Without API keys only this machine's own names are answered."
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
