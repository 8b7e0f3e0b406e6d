"""HTTP to an OpenAI-compatible server, with its failures as ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import httpx
import msgspec

from models.engine.remote.faults import ServerFault, fault_of_status, server_message
from models.engine.remote.options import RemoteEngineOptions

CHAT: Final = "chat/completions"
_ERROR_BYTES_MAX: Final = 64 * 1024
_RETRY_AFTER_S_MAX: Final = 60.0


class ModelCard(msgspec.Struct):
    """One entry of /v1/models; vLLM says more than others, and names the `parent` of an adapter."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    parent: str | None = None


class _ModelList(msgspec.Struct):
    data: list[ModelCard]


class ServerClient:
    """Requests to one server. Each raises ServerFault, or EventInvalid where it was refused."""

    def __init__(self, options: RemoteEngineOptions) -> None:
        key = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        self.url = options.url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=f"{self.url}/",
            # A proxy that compresses a stream would hold it back.
            headers={"Accept-Encoding": "identity", **key},
            # Waiting for an answer is bounded by our own deadlines.
            timeout=httpx.Timeout(None, connect=options.connect_timeout_s),
            limits=httpx.Limits(max_keepalive_connections=options.requests_max),
        )

    async def models(self) -> list[ModelCard]:
        """What the server has."""
        async with self._answer("GET", "models") as response:
            body = await self._read(response)
        try:
            return msgspec.json.decode(body, type=_ModelList).data
        except msgspec.DecodeError as error:
            raise ServerFault(
                f"What {self.url}/models answers is no list of models.",
                "HEADWATER_GENERATE_REMOTE_URL must end where the server's API begins: in /v1.",
                transient=False,
            ) from error

    async def post(self, path: str, body: dict[str, Any]) -> None:
        """Asks for something whose answer says no more than that it worked."""
        async with self._answer("POST", path, body) as response:
            await self._read(response)

    @asynccontextmanager
    async def chat(self, body: dict[str, Any]) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The body of a streamed answer; leaving closes it, and the server gives up the rest."""
        async with self._answer("POST", CHAT, body) as response:
            yield self._body(response)

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        with self._faults():
            async with self._client.stream(method, path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise fault_of_status(
                        response.status_code,
                        server_message(await self._read(response)),
                        _retry_after_s(response),
                    )
                yield response

    async def _body(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        with self._faults():
            async for data in response.aiter_bytes():
                yield data

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerFault(
                f"The server at {self.url} cannot be reached: {error or type(error).__name__}",
                "Start it, or set HEADWATER_GENERATE_REMOTE_URL to where it is.",
                down=True,
            ) from error
        except httpx.HTTPError as error:
            raise ServerFault(
                f"The connection to the server broke: {error or type(error).__name__}"
            ) from error

    async def _read(self, response: httpx.Response) -> bytes:
        """A short answer; what is over the bound is left out."""
        body = b""
        async for data in response.aiter_bytes():
            body += data
            if len(body) > _ERROR_BYTES_MAX:
                break
        return body


def _retry_after_s(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("retry-after", "0"))
    except ValueError:
        # The other form is a date.
        return 0.0
    return min(max(seconds, 0.0), _RETRY_AFTER_S_MAX)
