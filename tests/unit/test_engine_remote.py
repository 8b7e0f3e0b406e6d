"""The remote engine and a server that fails: what is asked again, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from fake_answers import tokens
from fake_openai import MIDST, FakeServer
from tiny_model import build_tiny_model

from infra.ports import free_ports
from models.engine.protocol import GenerationRequest, Piece, SamplingParams
from models.engine.remote.engine import RemoteEngine
from models.engine.remote.options import RemoteEngineOptions
from schemas.errors import EventInvalid, GenerationFailed, ModelUnavailable, SettingsInvalid

KEY = "sk-not-to-be-seen"


@asynccontextmanager
async def started(server: FakeServer, **options: object) -> AsyncIterator[RemoteEngine]:
    async with server.served() as url:
        engine = make(url, **options)
        await engine.start()
        yield engine
        await engine.close()


def make(url: str, **options: object) -> RemoteEngine:
    return RemoteEngine(RemoteEngineOptions(url=url, **options))  # type: ignore[arg-type]


def request(question: str = "the river", **options: object) -> GenerationRequest:
    params = SamplingParams(**{"max_tokens": 12, **options})  # type: ignore[arg-type]
    return GenerationRequest("r", ({"role": "user", "content": question},), params)


async def read(engine: RemoteEngine, asked: GenerationRequest | None = None) -> list[Piece]:
    async with aclosing(engine.stream(asked or request())) as stream:
        return [piece async for piece in stream]


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def said(server: FakeServer) -> str:
    """What the server's model has to say to the last request."""
    return "".join(word for word, _ in tokens(server.requests[-1], 500))


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["429", "503", "500", "hang up", "hide"])
async def test_what_fails_before_the_first_token_is_asked_again(fault: str) -> None:
    server = FakeServer()
    server.faults.extend([fault])
    async with started(server) as engine:
        pieces = await read(engine)
    assert text(pieces) == said(server)
    assert pieces[-1].finish_reason == "length"


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["break off", "junk", "error event"])
async def test_what_fails_in_the_midst_is_an_error_and_no_text_comes_twice(fault: str) -> None:
    server = FakeServer()
    server.faults.append(fault)
    async with started(server) as engine:
        pieces = await read(engine)
    assert len(server.requests) == 1
    assert said(server).startswith(text(pieces))
    assert pieces[-1].completion_tokens == MIDST - 1
    assert pieces[-1].finish_reason == "error"
    assert pieces[-1].error


@pytest.mark.asyncio
async def test_a_request_that_the_server_always_fails_at_is_an_error_after_three_tries() -> None:
    server = FakeServer()
    # The second is the question why.
    server.faults.extend(["500"] * 4)
    async with started(server) as engine:
        (piece,) = await read(engine)
        assert piece.finish_reason == "error"
        assert "as the test wants it" in piece.error
        assert [asked["stream"] for asked in server.requests] == [True, False, True, True]
        assert (await read(engine))[-1].finish_reason == "length"


@pytest.mark.asyncio
async def test_a_refusal_that_the_server_hides_in_a_broken_stream_is_found_out() -> None:
    server = FakeServer(owner="me")
    server.faults.append("hide")
    async with started(server) as engine:
        with pytest.raises(EventInvalid, match="length is 512, your request has 704"):
            await read(engine, request("sea " * 700))


@pytest.mark.asyncio
async def test_a_broken_end_of_a_complete_answer_does_no_harm() -> None:
    server = FakeServer()
    server.faults.append("unended")
    async with started(server) as engine:
        pieces = await read(engine)
    assert text(pieces) == said(server)
    assert (pieces[-1].finish_reason, pieces[-1].completion_tokens) == ("length", 12)


@pytest.mark.asyncio
async def test_without_the_servers_counts_pieces_are_counted() -> None:
    server = FakeServer()
    server.faults.append("uncounted")
    async with started(server) as engine:
        pieces = await read(engine)
        assert pieces[-1].completion_tokens == 12
        assert pieces[-1].prompt_tokens == engine.count_tokens(request().messages)


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "tokens_sent"), [("silent", 0), ("stall", MIDST - 1)])
async def test_silence_ends_an_answer_and_frees_the_server(fault: str, tokens_sent: int) -> None:
    server = FakeServer()
    server.faults.append(fault)
    async with started(server, first_token_timeout_s=0.2, token_timeout_s=0.1) as engine:
        pieces = await read(engine)
        assert pieces[-1].finish_reason == "error"
        assert "no token for 0." in pieces[-1].error
        assert pieces[-1].completion_tokens == tokens_sent
        async with asyncio.timeout(5):
            while server.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_request_outlives_a_restart_of_the_server() -> None:
    (port,) = free_ports(1)
    server = FakeServer()
    async with server.served(port) as url:
        engine = make(url)
        await engine.start()
    answer = asyncio.create_task(read(engine))
    await asyncio.sleep(0.3)
    async with server.served(port):
        assert text(await answer) == said(server)
    await engine.close()


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_named_with_the_setting() -> None:
    (port,) = free_ports(1)
    engine = make(f"http://127.0.0.1:{port}/v1", start_timeout_s=0.5)
    with pytest.raises(ModelUnavailable, match=rf":{port}/v1 cannot.*_REMOTE_URL"):
        await engine.start()
    await engine.close()


@pytest.mark.asyncio
async def test_a_server_that_goes_away_fails_the_engine_and_not_the_prompt() -> None:
    # GenerationFailed: the worker ends, and the prompt waits in Kafka for the next one.
    (port,) = free_ports(1)
    async with FakeServer().served(port) as url:
        engine = make(url, retry_for_s=0.5)
        await engine.start()
    with pytest.raises(GenerationFailed, match=rf"127.0.0.1:{port}/v1 cannot be reached"):
        await read(engine)
    await engine.close()


@pytest.mark.asyncio
async def test_start_waits_for_a_server_that_is_still_loading() -> None:
    (port,) = free_ports(1)
    engine = make(f"http://127.0.0.1:{port}/v1")
    start = asyncio.create_task(engine.start())
    await asyncio.sleep(0.3)
    async with FakeServer().served(port):
        await start
        assert text(await read(engine))
        await engine.close()


@pytest.mark.asyncio
async def test_a_wrong_key_says_which_setting_to_mend_and_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeServer(api_key="another").served() as url:
        engine = make(url, api_key=KEY)
        with pytest.raises(ModelUnavailable, match="HEADWATER_GENERATE_REMOTE_API_KEY") as caught:
            await engine.start()
        await engine.close()
    assert KEY not in f"{caught.value} {caught.value.__cause__} {engine.options} {caplog.text}"


@pytest.mark.asyncio
async def test_the_right_key_opens_and_a_revoked_one_fails_the_engine() -> None:
    server = FakeServer(api_key=KEY)
    async with started(server, api_key=KEY) as engine:
        assert text(await read(engine))
        server.api_key = "another"
        with pytest.raises(GenerationFailed, match="HEADWATER_GENERATE_REMOTE_API_KEY"):
            await read(engine)


@pytest.mark.asyncio
async def test_a_model_that_the_server_lacks_is_named_with_those_it_has() -> None:
    async with FakeServer().served() as url:
        engine = make(url, model="smollm2")
        with pytest.raises(ModelUnavailable, match=r"'smollm2'.*It serves: tiny/words"):
            await engine.start()
        await engine.close()
        elsewhere = make(url.removesuffix("/v1"))
        with pytest.raises(ModelUnavailable, match="ends in /v1"):
            await elsewhere.start()
        await elsewhere.close()


@pytest.mark.asyncio
async def test_an_answer_leaves_its_connection_to_the_next() -> None:
    server = FakeServer()
    async with started(server) as engine:
        for _ in range(3):
            await read(engine)
    assert server.connections == 1


@pytest.mark.asyncio
async def test_no_more_requests_are_open_at_the_server_than_allowed() -> None:
    server = FakeServer(slots=8)
    most = 0
    async with started(server, requests_max=3) as engine:
        tasks = [asyncio.create_task(read(engine)) for _ in range(9)]
        while not all(task.done() for task in tasks):
            most = max(most, server.running)
            await asyncio.sleep(0.001)
        assert {text(task.result()) for task in tasks} == {said(server)}
    assert most == 3


@pytest.mark.asyncio
async def test_a_tokenizer_makes_counts_exact_and_refuses_at_once(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path)
    server = FakeServer()
    async with started(server, tokenizer=str(folder), context_tokens_max=64) as engine:
        count = engine.count_tokens(request("the river").messages)
        with pytest.raises(EventInvalid, match=r"at most 63 "):
            engine.stream(request("sea " * 60))
        await read(engine, request("the river", max_tokens=1000))
    assert server.requests[-1]["max_tokens"] == 64 - count


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "localhost:8000"}, "is no address"),
        ({"url": "http://ada:secret@localhost/v1"}, "holds a login"),
        ({"url": "http://localhost/v1", "api_key": "sk-secret\nsecond"}, "API key"),
    ],
)
def test_options_check_themselves(options: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem) as caught:
        RemoteEngineOptions(**options)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
