"""A server with vLLM's API over a model of one line: fast, exact, and it fails on demand.

Shapes and refusals are those of vLLM's documentation: chat completions as server-sent events,
/v1/models, and the endpoints that load and unload LoRA adapters.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_answers import (
    END,
    HEAD,
    Refused,
    choice,
    chunk,
    tokens,
    write_answer,
    write_event,
)

MODEL = "tiny/words"
# A fault that comes in the midst of an answer comes before this token.
MIDST = 4


@dataclass
class FakeServer:
    """`faults` are used up one a chat request: a status, or a name that `_chat` knows."""

    context_tokens_max: int = 512
    slots: int = 4
    pace_s: float = 0.001
    api_key: str = ""
    owner: str = "vllm"
    loads_adapters: bool = True
    busy: bool = False
    faults: deque[str] = field(default_factory=deque)
    adapters: dict[str, str] = field(default_factory=dict)
    # Bodies of all chat requests; how many are answered now; connections so far.
    requests: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    connections: int = 0

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        """Listens, and gives the address that an engine is told."""
        self._places = asyncio.Semaphore(self.slots)
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.current_task())  # type: ignore[arg-type]
            self.connections += 1
            try:
                while await self._answer(reader, writer):
                    pass
            except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
                # The test is over, or the client has gone.
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False to hang up."""
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (s.partition(": ") for s in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        try:
            if self.api_key and headers.get("authorization") != f"Bearer {self.api_key}":
                raise Refused(401, f"Incorrect API key provided: {headers.get('authorization')}")
            path, body = request.split()[1], json.loads(content or "{}")
            if path == "/v1/chat/completions":
                return await self._chat(body, reader, writer)
            write_answer(writer, 200, self._manage(path, body))
        except Refused as refused:
            error = {"message": str(refused), "code": refused.status, "type": "refused"}
            write_answer(writer, refused.status, json.dumps({"error": error}).encode())
        return True

    def _manage(self, path: str, body: dict[str, Any]) -> bytes:
        if self.busy:
            raise Refused(503, "as the test wants it")
        if path == "/v1/models":
            return json.dumps({"object": "list", "data": self._models()}).encode()
        if not self.loads_adapters:
            raise Refused(404, "Not Found")
        if path == "/v1/load_lora_adapter":
            self._load(body["lora_name"], body["lora_path"])
        elif path != "/v1/unload_lora_adapter":
            raise Refused(404, "Not Found")
        elif self.adapters.pop(body["lora_name"], None) is None:
            raise Refused(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return b"Success"

    def _models(self) -> list[dict[str, Any]]:
        limit = self.context_tokens_max if self.owner == "vllm" else None
        base = {"id": MODEL, "owned_by": self.owner, "max_model_len": limit, "parent": None}
        return [base, *({"id": name, "parent": MODEL} for name in self.adapters)]

    def _load(self, name: str, path: str) -> None:
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (Path(path) / "adapter_config.json").is_file():
            raise Refused(404, f"Loading lora {name} failed: No adapter found for {path}")
        self.adapters[name] = path

    async def _chat(
        self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.requests.append(body)
        fault = self.faults.popleft() if self.faults else ""
        if fault.isdigit():
            raise Refused(int(fault), "as the test wants it")
        if fault == "hang up":
            return False
        if fault == "hide":
            # llama-cpp-python's server breaks off a stream that it would refuse.
            writer.write(HEAD + END)
            return True
        prompt_tokens = self._check(body)
        if not body["stream"]:
            write_answer(writer, 200, b"{}")
            return True
        async with self._places:
            self.running += 1
            try:
                return await self._generate(body, prompt_tokens, fault, reader, writer)
            finally:
                self.running -= 1

    def _check(self, body: dict[str, Any]) -> int:
        if body["model"] not in (MODEL, *self.adapters):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        words = [word for message in body["messages"] for word in message["content"].split()]
        prompt, limit = len(words) + 4, self.context_tokens_max
        if prompt >= limit:
            raise Refused(400, f"Maximum context length is {limit}, your request has {prompt}.")
        if body.get("max_tokens", 0) > limit - prompt:
            raise Refused(400, f"'max_tokens' is too large: {limit=}, {prompt=}")
        return prompt

    async def _generate(
        self,
        body: dict[str, Any],
        prompt_tokens: int,
        fault: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        writer.write(HEAD)
        write_event(writer, {"choices": [choice(role="assistant")]})
        said = tokens(body, self.context_tokens_max - prompt_tokens)
        for count, (text, reason) in enumerate(said, 1):
            stalls = fault == "silent" or (fault == "stall" and count == MIDST)
            await asyncio.sleep(self.pace_s)
            while stalls and not reader.at_eof():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            # A client that goes ends the generation, as in any real server.
            if reader.at_eof() or (count == MIDST and not _goes_on(fault, writer)):
                return False
            usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count}
            counted = {} if fault == "uncounted" else {"usage": usage}
            write_event(writer, {"choices": [choice(reason, content=text)], **counted})
            await writer.drain()
        if fault == "unended":
            return False
        writer.write(chunk(b"data: [DONE]\n\n") + END)
        return True


def _goes_on(fault: str, writer: asyncio.StreamWriter) -> bool:
    if fault == "junk":
        writer.write(chunk(b'data: {"choices": [{"del\n\n'))
    if fault == "error event":
        write_event(writer, {"error": {"message": "out of memory", "code": 500}})
    return fault not in ("break off", "junk", "error event")
