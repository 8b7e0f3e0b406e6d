"""Many streams together, also across a killed gateway: every reader ends with the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fixtures import RunningBroker
from gateways import Gateways, gateways
from stage import kill
from workers import Workers, paused

from schemas import codec
from schemas.events import Generation
from schemas.topics import GENERATIONS
from streams.settings import KafkaSettings
from streams.subscription import Subscription

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

STREAMS = 50
TOKENS = 200
TIMEOUT_S = 120
GRACE_S = 1.0
ENV = {
    "HEADWATER_GATEWAY_RESUME_S": str(GRACE_S),
    # How long a broker may say nothing before it counts as away.
    "HEADWATER_KAFKA_CONNECT_TIMEOUT_S": "2",
}


@dataclass
class Reader:
    """One caller of a streamed chat, who remembers the id of the last event.

    `opened`: there is one, and a stream that gives more.
    """

    http: httpx.AsyncClient
    seed: int
    text: str = ""
    last_event_id: str = ""
    prompt_id: str = ""
    done: bool = False
    opened: asyncio.Event = field(default_factory=asyncio.Event)

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
            if self.last_event_id:
                self.opened.set()
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
        self.opened.set()
        if data == "[DONE]":
            self.done = True
            return
        chunk: dict[str, Any] = json.loads(data)
        assert "error" not in chunk, chunk
        self.prompt_id = chunk["id"]
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""


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


@pytest.fixture(scope="module")
def two(
    river: KafkaSettings, agents: Workers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateways]:
    """Two gateways that share their keys."""
    with gateways(river, tmp_path_factory.mktemp("two"), 2, ENV) as found:
        yield found


async def test_a_stream_that_goes_there_and_back_is_not_cancelled(
    agents: Workers, two: Gateways
) -> None:
    key, engine_pid = two.keys["app"], agents.supervisor.pids()["generate"]
    http, (reader,) = a_crowd(1)
    async with http:
        # So that its answer outlasts the time that the gateway it left waits for it.
        with paused(engine_pid):
            for number in range(2):
                reader.opened.clear()
                reading = asyncio.create_task(reader.read(two.url(number), key))
                await reader.opened.wait()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            back = asyncio.create_task(reader.read(two.url(0), key))
            await asyncio.sleep(1.5 * GRACE_S)
        await back
    assert reader.done


async def test_a_gateway_is_not_ready_while_the_broker_is_away(
    running_broker: RunningBroker, two: Gateways
) -> None:
    broker_pid = running_broker.supervisor.pids()["kafka"]
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:

        async def ready() -> httpx.Response:
            return await http.get(f"{two.url(1)}/health/ready")

        assert (await ready()).status_code == 200
        with paused(broker_pid):
            away = await ready()
            alive = await http.get(f"{two.url(1)}/health/live")
        assert (away.status_code, away.json()["error"]["code"]) == (503, "unavailable")
        assert alive.status_code == 200
        async with asyncio.timeout(TIMEOUT_S):
            while (await ready()).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_streams_of_a_killed_gateway_go_on_at_another(
    river: KafkaSettings, two: Gateways
) -> None:
    key = two.keys["app"]
    http, readers = a_crowd(STREAMS)
    async with http:
        first = [asyncio.create_task(reader.read(two.url(0), key)) for reader in readers]
        # All have an id to go on from, a third of them some text.
        async with asyncio.timeout(TIMEOUT_S):
            while not all(r.last_event_id for r in readers) or not enough(readers):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await kill(two.supervisor, "gateway-0")
        ended = await asyncio.gather(*first, return_exceptions=True)
        broken = [reader for reader in readers if not reader.done]
        assert sum(isinstance(end, httpx.HTTPError) for end in ended) == len(broken) >= 10
        midway = [reader for reader in broken if reader.text]
        assert midway
        await asyncio.gather(*(reader.read(two.url(1), key) for reader in broken))
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
