"""The only door of a SuperLink that devices see: the fleet calls pass, every other is refused.

Flower 1.41 answers control and runtime calls on the devices' port too, without credentials even
where nodes have keys: whoever reaches it may start runs and read results. So the SuperLink listens
on loopback, and this gate, with TLS, on the network. Registering is the operator's, so it is not
let through either. Run with `python -m infra.fleet_gate`; `infra/federation.py` does.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents.runtime.ready_file import touch_ready_file

ALLOWED: Final = frozenset(
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# One adapter and its framing; a device has no reason to send more at once.
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_HOP_BY_HOP: Final = frozenset(
    ("host", "connection", "transfer-encoding", "content-length", "keep-alive", "content-encoding")
)


def gate(superlink: httpx.AsyncClient) -> Starlette:
    """An application that hands the allowed calls on; it closes the client at its end."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with superlink:
            touch_ready_file()
            yield

    async def hand_on(request: Request) -> Response:
        # The raw path, to the letter: nothing that a later decoding could turn into another.
        path = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        if path not in ALLOWED or request.method != "POST" or request.url.query:
            return Response("Only Flower's fleet calls pass here.\n", 404)
        body = await _body(request)
        if body is None:
            return Response("Too large.\n", 413)
        try:
            answer = await superlink.post(path, content=body, headers=_headers(request.headers.raw))
        except httpx.HTTPError:
            return Response("The SuperLink does not answer.\n", 503)
        kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP]
        return Response(answer.content, answer.status_code, dict(kept))

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
    routes = [Route("/{path:path}", hand_on, methods=methods)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _headers(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(k, v) for k, v in raw if k.decode("latin-1").lower() not in _HOP_BY_HOP]


def main() -> None:
    """Listens until the process is told to end; without a certificate there is no TLS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--superlink", required=True)
    parser.add_argument("--superlink-ca", required=True, type=Path)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    given = parser.parse_args()
    superlink = httpx.AsyncClient(
        base_url=given.superlink,
        timeout=httpx.Timeout(60.0, read=300.0),
        verify=ssl.create_default_context(cafile=given.superlink_ca),
    )
    uvicorn.run(
        gate(superlink),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=given.certificate,
        ssl_keyfile=given.key,
    )


if __name__ == "__main__":
    main()
