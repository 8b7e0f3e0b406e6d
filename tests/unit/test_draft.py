"""From a prompt's sampling options to finished answers, with a tiny real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from tiny_model import build_tiny_model

from agents.generation.chunks import Part, joined
from agents.generation.draft import Draft, write_answer
from agents.generation.sampling import logprob_event, request_of_choice, sampling_params
from models.engine import protocol
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas import codec
from schemas.errors import EventInvalid, GenerationFailed
from schemas.events import Context, Message, Prompt, Sampling, TokenLogprob, TopLogprob
from schemas.topics import GENERATIONS, PROMPTS

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
    "required": ["b"],
}


@pytest_asyncio.fixture
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TorchEngine]:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    engine = TorchEngine(
        TorchEngineOptions(folder.parent, str(folder), device="cpu", dtype="float32")
    )
    await engine.start()
    yield engine
    await engine.close()


def draft_of(sampling: Sampling) -> Draft:
    prompt = Prompt([Message("user", "the river")], sampling=sampling)
    return Draft(Context("p", prompt, [], 0, 0), "m", "base", 1)


async def written(engine: TorchEngine, sampling: Sampling) -> tuple[Draft, list[Part]]:
    draft, parts = draft_of(sampling), list[Part]()
    await write_answer(draft, engine, 0, parts.append)
    return draft, parts


@pytest.mark.asyncio
async def test_several_answers_are_told_apart_and_the_first_is_that_of_one(
    engine: TorchEngine,
) -> None:
    one = Sampling(max_tokens=20, temperature=1.0, seed=5)
    single, _ = await written(engine, one)
    draft, parts = await written(engine, Sampling(max_tokens=20, temperature=1.0, seed=5, n=3))
    generation = draft.finished()
    texts = [generation.text, *(other.text for other in generation.alternatives)]
    assert texts[0] == single.finished().text
    assert len(set(texts)) == 3
    assert [part.text for part in joined(parts)] == texts
    again, _ = await written(engine, Sampling(max_tokens=20, temperature=1.0, seed=5, n=3))
    assert again.finished().alternatives == generation.alternatives
    counts = [choice.usage.completion_tokens for choice in draft.choices]
    assert generation.usage.completion_tokens == sum(counts) > max(counts)
    assert codec.decode(GENERATIONS, codec.encode(generation)) == generation


@pytest.mark.asyncio
async def test_json_and_log_probabilities_reach_the_record(engine: TorchEngine) -> None:
    sampling = Sampling(
        max_tokens=100, temperature=1.0, n=2, logprobs=True, top_logprobs=2, json_schema=SCHEMA
    )
    draft, parts = await written(engine, sampling)
    generation = draft.finished()
    for answer in (generation, *generation.alternatives):
        assert answer.finish_reason == "stop"
        Draft202012Validator(SCHEMA).validate(json.loads(answer.text))
        assert "".join(told.token for told in answer.logprobs) == answer.text
        assert all(len(told.top) == 2 for told in answer.logprobs)
    assert joined(parts)[0].logprobs == tuple(generation.logprobs)
    assert codec.decode(GENERATIONS, codec.encode(generation)) == generation


@pytest.mark.asyncio
async def test_a_schema_that_cannot_be_followed_ends_in_an_error_that_says_so(
    engine: TorchEngine,
) -> None:
    draft, _ = await written(engine, Sampling(json_schema={"type": "string", "not": {}}, n=2))
    generation = draft.finished()
    assert generation.finish_reason == "error"
    assert "not cannot be used" in str(generation.error)
    assert generation.alternatives[0].error == generation.error


@pytest.mark.asyncio
async def test_an_engine_that_ends_is_no_answer(engine: TorchEngine) -> None:
    await engine.close()
    with pytest.raises(GenerationFailed):
        await written(engine, Sampling(n=2))


def test_further_answers_draw_with_seeds_of_their_own() -> None:
    request = GenerationRequest("g", (), SamplingParams(seed=3))
    requests = [request_of_choice(request, number) for number in range(8)]
    assert requests[0] == request
    assert len({r.sampling.seed for r in requests}) == len({r.request_id for r in requests}) == 8
    assert {replace(r.sampling, seed=3) for r in requests} == {request.sampling}


def test_the_order_of_a_schema_is_kept() -> None:
    params = sampling_params(Sampling(json_schema={"b": 1, "a": 2}), "p")
    assert params.json_schema == '{"b": 1, "a": 2}'


def test_a_part_of_a_character_keeps_its_bytes() -> None:
    told = protocol.TokenLogprob(
        "\N{REPLACEMENT CHARACTER}", -0.1234567, b"\xf0", (protocol.TopLogprob("a", -1.0, b"a"),)
    )
    expected = TokenLogprob(told.token, -0.123457, b"\xf0", [TopLogprob("a", -1.0)])
    assert logprob_event(told) == expected


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"n": 9}, "n"),
        ({"n": 8, "max_tokens": 1025}, "n · max_tokens"),
        ({"max_tokens": 8192, "logprobs": True, "top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs needs logprobs"),
        ({"json_object": True, "json_schema": {}}, "exclude"),
        ({"json_object": True, "stop": ["x"]}, "stop"),
        ({"json_schema": {"enum": ["x" * 17_000]}}, "bytes"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"min_p": 1.1}, "min_p"),
    ],
)
def test_prompts_with_options_that_cannot_be_are_refused(
    options: dict[str, object], fault: str
) -> None:
    prompt = {"messages": [{"role": "user", "content": "x"}], "sampling": options}
    with pytest.raises(EventInvalid, match=fault):
        codec.decode(PROMPTS, json.dumps(prompt).encode())
