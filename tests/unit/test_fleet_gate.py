"""What devices may ask of the SuperLink, and that nothing else gets through to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.fleet_gate import ALLOWED, BODY_BYTES_MAX, gate

pytestmark = pytest.mark.asyncio

# Every call that Flower's SuperLink knows on its one port.
CALLS = sorted(path for method, path in PROTOBUF_REQUEST_TYPES if method == "POST")
OTHERS = [path for path in CALLS if path not in ALLOWED]


class Behind:
    """What stands where the SuperLink does, and what came through to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []
        routes = [Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT"])]
        self.app = Starlette(routes=routes)

    async def answer(self, request: Request) -> Response:
        self.calls.append((request.url.path, await request.body()))
        return Response(b"answer", 401, {"x-said": request.headers.get("x-key", "")})


@asynccontextmanager
async def a_gate() -> AsyncIterator[tuple[httpx.AsyncClient, Behind]]:
    behind = Behind()
    inner = httpx.AsyncClient(
        transport=httpx.ASGITransport(behind.app), base_url="https://superlink"
    )
    outer = httpx.ASGITransport(gate(inner))
    async with inner, httpx.AsyncClient(transport=outer, base_url="https://gate") as client:
        yield client, behind


async def test_flower_has_calls_that_must_not_pass() -> None:
    assert {"/v1/control/start-run", "/v1/fleet/register-node"} <= set(OTHERS)
    assert set(CALLS) >= ALLOWED


async def test_fleet_calls_pass_with_body_headers_and_status() -> None:
    async with a_gate() as (client, behind):
        for path in sorted(ALLOWED):
            found = await client.post(path, content=b"question", headers={"x-key": "signed"})
            assert (found.status_code, found.content) == (401, b"answer")
            assert found.headers["x-said"] == "signed"
        assert behind.calls == [(path, b"question") for path in sorted(ALLOWED)]


async def test_every_other_call_of_flower_is_refused() -> None:
    async with a_gate() as (client, behind):
        for path in OTHERS:
            assert (await client.post(path, content=b"x")).status_code == 404
        assert behind.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/v1/fleet/",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet//pull-messages",
        "//v1/fleet/pull-messages",
        "/v1/Fleet/pull-messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull%2dmessages",
        "/v1/fleet/pull-messages;x",
        "/v1/fleet/pull-messages?x=/v1/control/start-run",
    ],
)
async def test_no_way_of_writing_a_path_gets_around_it(path: str) -> None:
    async with a_gate() as (client, behind):
        url = httpx.URL("https://gate").copy_with(raw_path=path.encode())
        assert (await client.post(url)).status_code == 404
        assert behind.calls == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_only_posts_pass(method: str) -> None:
    async with a_gate() as (client, behind):
        assert (await client.request(method, "/v1/fleet/pull-messages")).status_code == 404
        assert behind.calls == []


async def test_a_body_without_end_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 2**20 + 2):
            yield bytes(2**20)

    async with a_gate() as (client, behind):
        found = await client.post("/v1/fleet/push-object", content=endless())
        assert found.status_code == 413
        assert behind.calls == []
