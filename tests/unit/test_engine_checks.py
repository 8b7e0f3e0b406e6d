"""The suite that every Engine passes: the local one, and the remote one over two servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest
import pytest_asyncio
from fake_openai import FakeServer
from llama_server import LlamaServer, llama_server
from tiny_model import build_tiny_model

from models.engine.options import TorchEngineOptions
from models.engine.protocol import Engine, GenerationRequest, Piece, SamplingParams
from models.engine.remote.engine import RemoteEngine
from models.engine.remote.options import RemoteEngineOptions
from models.engine.torch_engine import TorchEngine
from schemas.errors import EventInvalid, GenerationFailed

CONTEXT_TOKENS_MAX = 512
SLOTS = 2
QUESTIONS = ["hello", "the river", "what carries the answers down to the sea?", "x", "🌊"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


# Of the module, so that the server of the last kind starts once, before the first of its tests.
@pytest.fixture(
    scope="module",
    params=[
        "torch",
        "fake-vllm",
        pytest.param("llama-cpp-python", marks=[pytest.mark.long, pytest.mark.weights]),
    ],
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def real_server(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaServer | None]:
    if kind != "llama-cpp-python":
        yield None
        return
    with llama_server(tmp_path_factory.mktemp("llama")) as server:
        yield server


@dataclass(frozen=True)
class Subject:
    """An engine, and how much its server still does."""

    engine: Engine
    fake: FakeServer | None
    real: LlamaServer | None

    def disconnected(self) -> int:
        """Generations that the real server has given up so far."""
        return self.real.log().count("Disconnected from client") if self.real else 0

    def stopped(self, before: int) -> bool:
        """Whether the server has given up one more, or has nothing to do."""
        if self.real:
            return self.disconnected() > before
        return self.fake is None or self.fake.running == 0


def local(folder: Path) -> TorchEngine:
    return TorchEngine(
        TorchEngineOptions(
            cache_dir=folder.parent,
            model=str(folder),
            slots=SLOTS,
            context_tokens_max=CONTEXT_TOKENS_MAX,
            device="cpu",
            dtype="float32",
        )
    )


def remote(url: str) -> RemoteEngine:
    return RemoteEngine(
        RemoteEngineOptions(
            url=url, context_tokens_max=CONTEXT_TOKENS_MAX, requests_max=SLOTS, retry_for_s=5
        )
    )


@pytest_asyncio.fixture
async def subject(
    kind: str, folder: Path, real_server: LlamaServer | None
) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        fake = FakeServer(context_tokens_max=CONTEXT_TOKENS_MAX) if kind == "fake-vllm" else None
        engine: Engine
        if fake:
            engine = remote(await stack.enter_async_context(fake.served()))
        elif real_server:
            engine = remote(real_server.url)
        else:
            engine = local(folder)
        await engine.start()
        yield Subject(engine, fake, real_server)
        await engine.close()


@pytest.fixture
def engine(subject: Subject) -> Engine:
    return subject.engine


def request(question: str, **options: object) -> GenerationRequest:
    params = SamplingParams(**{"max_tokens": 40, **options})  # type: ignore[arg-type]
    return GenerationRequest("r", ({"role": "user", "content": question},), params)


async def read(engine: Engine, request: GenerationRequest) -> list[Piece]:
    async with aclosing(engine.stream(request)) as stream:
        return [piece async for piece in stream]


async def answer(engine: Engine, question: str, **options: object) -> str:
    return "".join(piece.text for piece in await read(engine, request(question, **options)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.mark.asyncio
async def test_pieces_count_tokens_and_the_last_says_why(engine: Engine) -> None:
    pieces = await read(engine, request("the river", max_tokens=12))
    assert all(piece.text for piece in pieces[:-1])
    counts = [piece.completion_tokens for piece in pieces]
    assert counts == sorted(counts)
    assert counts[-1] == 12
    assert {piece.finish_reason for piece in pieces[:-1]} == {None}
    assert pieces[-1].finish_reason == "length"
    assert pieces[-1].prompt_tokens > 0


@pytest.mark.asyncio
async def test_an_answer_ends_by_itself(engine: Engine) -> None:
    pieces = await read(engine, request("hello", max_tokens=200))
    assert pieces[-1].finish_reason == "stop"
    assert 0 < pieces[-1].completion_tokens < 200
    assert "<|" not in "".join(piece.text for piece in pieces)


@pytest.mark.asyncio
async def test_a_stop_string_ends_the_answer_before_it(engine: Engine) -> None:
    whole = await answer(engine, "the river")
    stop = whole[10:13]
    pieces = await read(engine, request("the river", stop=(stop,)))
    assert "".join(piece.text for piece in pieces) == whole.partition(stop)[0]
    assert pieces[-1].finish_reason == "stop"


@pytest.mark.asyncio
async def test_a_seed_gives_the_same_text_and_another_another(engine: Engine) -> None:
    # A seed of 63 bits, as a prompt's id gives one.
    options = {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": 2**63 - 5}
    first = await answer(engine, "the sea", **options)
    assert await answer(engine, "the sea", **options) == first
    assert await answer(engine, "the sea", **{**options, "seed": 12}) != first


@pytest.mark.asyncio
async def test_every_token_is_told_with_its_log_probability(engine: Engine) -> None:
    asked = request("hello", max_tokens=60, logprobs=True, top_logprobs=3)
    pieces = await read(engine, asked)
    told = [logprob for piece in pieces for logprob in piece.logprobs]
    text = "".join(piece.text for piece in pieces)
    assert b"".join(logprob.raw for logprob in told).decode(errors="replace") == text
    # An end token counts, and is not told of.
    assert pieces[-1].completion_tokens - len(told) in (0, 1)
    for logprob in told:
        ranks = [top.logprob for top in logprob.top]
        assert len(ranks) == 3
        assert ranks == sorted(ranks, reverse=True)
        assert logprob.logprob <= ranks[0] <= 0.0
    assert not any(piece.logprobs for piece in await read(engine, request("hello")))


@pytest.mark.asyncio
async def test_an_answer_under_a_schema_is_such_json(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"open": {"type": "boolean"}, "side": {"enum": ["left", "right"]}},
        "required": ["open", "side"],
    }
    asked = request("Is the lock open?", max_tokens=80, json_schema=json.dumps(schema))
    pieces = await read(engine, asked)
    assert pieces[-1].finish_reason == "stop"
    jsonschema.validate(json.loads("".join(piece.text for piece in pieces)), schema)


@pytest.mark.asyncio
async def test_a_schema_that_cannot_be_followed_is_refused(engine: Engine) -> None:
    with pytest.raises(EventInvalid, match="uniqueItems"):
        await answer(engine, "x", json_schema='{"type": "array", "uniqueItems": true}')


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 2.0}]
)
async def test_penalties_change_what_is_said(engine: Engine, penalty: dict[str, float]) -> None:
    assert await answer(engine, "the river", **penalty) != await answer(engine, "the river")


@pytest.mark.asyncio
async def test_a_version_that_is_not_loaded_is_named(engine: Engine) -> None:
    (piece,) = await read(engine, replace(request("x"), model_version="v7"))
    assert piece.finish_reason == "error"
    assert "'v7' is not loaded" in piece.error


@pytest.mark.asyncio
async def test_answers_together_are_those_given_one_by_one(engine: Engine) -> None:
    alone = [await answer(engine, question) for question in QUESTIONS]
    assert await asyncio.gather(*(answer(engine, question) for question in QUESTIONS)) == alone


@pytest.mark.asyncio
async def test_closing_a_stream_frees_its_place_here_and_at_the_server(subject: Subject) -> None:
    engine = subject.engine
    before = subject.disconnected()
    stream = engine.stream(request("tell a long story of the sea", max_tokens=450))
    await anext(stream)
    assert engine.running == 1
    await stream.aclose()
    await until(lambda: engine.running == 0)
    await until(lambda: subject.stopped(before))
    assert await answer(engine, "x", max_tokens=3)


@pytest.mark.asyncio
async def test_cancelling_a_reader_frees_its_place(engine: Engine) -> None:
    tasks = [asyncio.create_task(answer(engine, "the river", max_tokens=400)) for _ in range(5)]
    await until(lambda: (engine.running, engine.waiting) == (SLOTS, 5 - SLOTS))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: engine.running == 0)
    assert await answer(engine, "x", max_tokens=3)


@pytest.mark.asyncio
async def test_a_prompt_without_room_for_an_answer_is_refused_with_numbers(engine: Engine) -> None:
    with pytest.raises(EventInvalid, match=r"51[12].*\d{3}|\d{3}.*51[12]"):
        await read(engine, request("sea " * 700))


@pytest.mark.asyncio
async def test_an_answer_goes_as_far_as_the_context(engine: Engine) -> None:
    pieces = await read(engine, request("river", max_tokens=8000, temperature=3.0))
    assert pieces[-1].finish_reason in ("length", "stop")
    assert 0 < pieces[-1].completion_tokens < CONTEXT_TOKENS_MAX


@pytest.mark.asyncio
async def test_a_request_without_messages_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(EventInvalid, match="no messages"):
        engine.stream(GenerationRequest("r", (), SamplingParams()))


@pytest.mark.asyncio
async def test_a_longer_prompt_counts_more_tokens(engine: Engine) -> None:
    counts = [engine.count_tokens(request("sea " * n).messages) for n in (1, 10, 100)]
    assert 0 < counts[0] < counts[1] < counts[2]


@pytest.mark.asyncio
async def test_closing_the_engine_ends_open_streams(engine: Engine) -> None:
    tasks = [asyncio.create_task(answer(engine, "the river", max_tokens=400)) for _ in range(4)]
    await until(lambda: (engine.running, engine.waiting) == (SLOTS, 4 - SLOTS))
    await engine.close()
    await engine.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [GenerationFailed] * 4
    with pytest.raises(GenerationFailed):
        engine.stream(request("too late"))
