"""Many streams together, also across a killed gateway: every reader ends with the answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateways import Gateways, gateways
from stage import kill
from workers import Workers

from schemas import codec
from schemas.events import Generation
from schemas.topics import GENERATIONS
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

STREAMS = 50
TOKENS = 200
TIMEOUT_S = 120


@dataclass
class Reader:
    """One caller of a streamed chat, who remembers the id of the last event."""

    http: httpx.AsyncClient
    seed: int
    text: str = ""
    last_event_id: str = ""
    prompt_id: str = ""
    done: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, url: str, key: str) -> None:
        """Until the end, or until the connection breaks."""
        headers = {"Authorization": f"Bearer {key}"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        asked = {
            "model": "headwater",
            "messages": [{"role": "user", "content": "How deep?"}],
            "max_tokens": TOKENS,
            "temperature": 1.0,
            "seed": self.seed,
            "stream": True,
            "retrieval": {"top_k": 0},
        }
        async with self.http.stream(
            "POST", f"{url}/v1/chat/completions", json=asked, headers=headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            event_id = ""
            async for line in response.aiter_lines():
                # An event counts once its empty line came.
                if line.startswith("id: "):
                    event_id = line[4:]
                elif line.startswith("data: "):
                    data = line[6:]
                elif not line:
                    self.take(event_id, data)

    def take(self, event_id: str, data: str) -> None:
        self.last_event_id = event_id
        if data == "[DONE]":
            self.done = True
            return
        chunk: dict[str, Any] = json.loads(data)
        assert "error" not in chunk, chunk
        self.prompt_id = chunk["id"]
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""
        if self.text:
            self.begun.set()


def a_crowd(count: int) -> tuple[httpx.AsyncClient, list[Reader]]:
    limits = httpx.Limits(max_connections=count + 10)
    http = httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S)
    return http, [Reader(http, seed) for seed in range(count)]


async def answers(kafka: KafkaSettings, wanted: set[str]) -> dict[str, str]:
    """The finished texts by prompt."""
    found: dict[str, str] = {}
    async with (
        asyncio.timeout(TIMEOUT_S),
        Subscription(kafka, GENERATIONS, since="earliest") as all_,
    ):
        async for record in all_.records():
            if record.key_text in wanted:
                generation: Generation = codec.decode(GENERATIONS, record.value or b"")
                found[generation.prompt_id] = generation.text
                if found.keys() == wanted:
                    break
    return found


async def test_streams_of_a_killed_gateway_go_on_at_another(
    river: KafkaSettings, agents: Workers, tmp_path: Path
) -> None:
    # Kept from the event loop: the supervisor waits for its processes in a thread.
    manager = gateways(river, tmp_path, 2)
    found = await asyncio.to_thread(manager.__enter__)
    try:
        await kill_and_resume(river, found)
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def kill_and_resume(river: KafkaSettings, found: Gateways) -> None:
    key = found.keys["app"]
    http, readers = a_crowd(STREAMS)
    async with http:
        first = [asyncio.create_task(reader.read(found.url(0), key)) for reader in readers]
        # All have an id to go on from, a third of them some text.
        async with asyncio.timeout(TIMEOUT_S):
            while not all(r.last_event_id for r in readers) or not enough(readers):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await kill(found.supervisor, "gateway-0")
        ended = await asyncio.gather(*first, return_exceptions=True)
        broken = [reader for reader in readers if not reader.done]
        assert sum(isinstance(end, httpx.HTTPError) for end in ended) == len(broken) >= 10
        midway = [reader for reader in broken if reader.text]
        assert midway
        await asyncio.gather(*(reader.read(found.url(1), key) for reader in broken))
    assert all(reader.done for reader in readers)
    made = await answers(river, {reader.prompt_id for reader in readers})
    assert {reader.prompt_id: reader.text for reader in readers} == made


def enough(readers: list[Reader]) -> bool:
    return sum(bool(reader.text) for reader in readers) >= STREAMS // 3


@pytest.mark.long
async def test_two_hundred_streams_are_all_right(river: KafkaSettings, gateway: Gateways) -> None:
    http, readers = a_crowd(200)
    async with http:
        key = gateway.keys["app"]
        await asyncio.gather(*(reader.read(gateway.url(), key) for reader in readers))
    assert all(reader.done for reader in readers)
    made = await answers(river, {reader.prompt_id for reader in readers})
    assert {reader.prompt_id: reader.text for reader in readers} == made
