"""JSON Schemas: those taken are followed to the letter, whatever the model wants to say."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from tiny_model import build_tiny_model, build_tiny_tokenizer

from models.engine import grammar as grammar_module
from models.engine.grammar import Grammars
from models.engine.options import TorchEngineOptions
from models.engine.protocol import GenerationRequest, Piece, SamplingParams
from models.engine.torch_engine import TorchEngine
from schemas.errors import EventInvalid

TOKENIZER = build_tiny_tokenizer()
ENDS = frozenset({0, 2})

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "born": {"type": "string", "format": "date"},
        "height": {"type": "number", "minimum": 0.25, "maximum": 2.5},
        "kind": {"enum": ["human", "river", 7, None, {"a": [1]}]},
        "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["name", "kind"],
}
FOLLOWED: dict[str, Any] = {
    "anything": {},
    "an object of anything": {"type": "object"},
    "person": PERSON,
    "short text": {"type": "string", "minLength": 2, "maxLength": 4},
    "integer in a range": {"type": "integer", "minimum": -17, "maximum": 123},
    "number in a range": {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": -0.5},
    "list of types": {"type": ["string", "integer", "null"], "maxLength": 3},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,4}-\\d+(?:x|y\\.)$"},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "null"}],
        "items": {"type": "boolean"},
        "minItems": 3,
        "maxItems": 4,
    },
    "counted properties": {
        "type": "object",
        "properties": {name: {"type": "null"} for name in "abcdef"},
        "minProperties": 3,
        "maxProperties": 4,
    },
    "unnamed properties": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "maxProperties": 2,
    },
    "named and unnamed": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": True,
    },
    "alternatives": {
        "anyOf": [{"type": "boolean"}, {"const": "π🌊"}, {"$ref": "#/$defs/x"}],
        "$defs": {"x": {"type": "array", "items": {"type": "null"}}},
    },
    "times": {
        "type": "array",
        "items": {"type": "string", "format": "date-time"},
        "minItems": 1,
        "maxItems": 1,
    },
    "awkward names": {
        "type": "object",
        "properties": {'a"b\n': {"type": "null"}, "é": {"type": "null"}, "": {"type": "null"}},
        "required": ['a"b\n', "é", ""],
    },
}
REFUSED: dict[str, Any] = {
    "is no object": True,
    "multipleOf": {"type": "integer", "multipleOf": 3},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "type is missing": {"minimum": 3},
    "oneOf": {"type": "integer", "oneOf": [{"minimum": 3}]},
    "minimum": {"$ref": "#/$defs/n", "minimum": 9, "$defs": {"n": {"type": "integer"}}},
    "names nothing": {"$ref": "http://example.org/schema"},
    "as itself": {"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}]}}},
    "required names": {"type": "object", "required": ["a"]},
    "is not of the type": {"type": "string", "enum": ["a", 1]},
    "pattern is not": {"type": "string", "pattern": "^([a-z]{1,100}){1,100}$"},
    "pattern repeats": {"type": "string", "pattern": "^[a-z]{1,100}$"},
    "exclude each other": {"type": "string", "pattern": "^a$", "maxLength": 3},
    "exponent": {"type": "number", "maximum": 1e-7},
    "different lengths": {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "maxLength": n} for n in range(9)},
    },
    "greater than": {"type": "integer", "minimum": 5, "maximum": 3},
    "levels deep": None,
    "over 16384 bytes": {"enum": ["x" * 16_384]},
}
nested: Any = {"type": "null"}
for _ in range(40):
    nested = {"type": "array", "items": nested}
REFUSED["levels deep"] = nested


def params(schema: Any, **options: Any) -> SamplingParams:
    return SamplingParams(json_schema=json.dumps(schema), **options)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all grammars of this file: the vocabulary is made once."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(scope="module")
def grammars(loop: asyncio.AbstractEventLoop) -> Grammars:
    return Grammars(TOKENIZER, len(TOKENIZER), ENDS)


@pytest.mark.parametrize("name", FOLLOWED)
def test_whatever_the_grammar_lets_through_is_valid(
    name: str, loop: asyncio.AbstractEventLoop, grammars: Grammars
) -> None:
    """A model that says anything at random, but likes to close brackets and rare characters."""
    vocabulary = loop.run_until_complete(grammars.vocabulary())
    dice, validator, finished = random.Random(name), Draft202012Validator(FOLLOWED[name]), 0
    weights = [
        8 if text[:1] in (b'"', b"}", b"]", b",", b":") else 5 if text[:1] >= b"\xe0" else 1
        for text in vocabulary.texts
    ]
    for _ in range(15):
        grammar = loop.run_until_complete(grammars.grammar(params(FOLLOWED[name])))
        assert grammar is not None
        text = b""
        for _ in range(150):
            logits = torch.zeros(len(TOKENIZER))
            grammar.mask(logits)
            allowed = (logits == 0).nonzero()[:, 0].tolist()
            assert allowed
            if 0 in allowed and (set(allowed) == ENDS or dice.random() < 0.3):
                validator.validate(json.loads(text.decode()))
                finished += 1
                break
            allowed = [token for token in allowed if token not in ENDS]
            (token,) = dice.choices(allowed, [weights[token] for token in allowed])
            grammar.take(token)
            text += vocabulary.texts[token]
    assert finished > 5


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_followed_is_refused_with_its_place(
    fault: str, loop: asyncio.AbstractEventLoop, grammars: Grammars
) -> None:
    with pytest.raises(EventInvalid, match=fault):
        loop.run_until_complete(grammars.grammar(params(REFUSED[fault])))


def test_a_pattern_is_checked_in_no_time(
    loop: asyncio.AbstractEventLoop, grammars: Grammars
) -> None:
    """Backtracking would take years."""
    schema = {"type": "string", "pattern": "^" + "a" * 5_000 + '"'}
    with pytest.raises(EventInvalid, match="pattern"):
        loop.run_until_complete(grammars.grammar(params(schema)))


def test_definitions_that_branch_are_checked_in_no_time(
    loop: asyncio.AbstractEventLoop, grammars: Grammars
) -> None:
    """There are 2^100 ways through these."""
    names = [f"#/$defs/d{n}" for n in range(1, 101)]
    defs = {f"d{n}": {"anyOf": [{"$ref": name}] * 2} for n, name in enumerate(names)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**defs, "d100": {"$ref": "#/$defs/d0"}}}
    with pytest.raises(EventInvalid, match="as itself"):
        loop.run_until_complete(grammars.grammar(params(schema)))


def test_compiled_grammars_are_kept_up_to_a_limit(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars, compiled = Grammars(TOKENIZER, len(TOKENIZER), ENDS), []
    compile_really = grammars._compile
    monkeypatch.setattr(
        grammars, "_compile", lambda *args: compiled.append(args[1]) or compile_really(*args)
    )

    def use(*names: str) -> None:
        for name in names:
            loop.run_until_complete(grammars.grammar(params({"const": name})))

    use("a", "b", "a")
    assert [json.loads(schema)["enum"] for schema in compiled] == [["a"], ["b"]]
    monkeypatch.setattr(grammar_module, "CACHE_BYTES_MAX", 1)
    use("c", "a")
    assert len(compiled) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


async def read(engine: TorchEngine, sampling: SamplingParams, text: str = "x") -> list[Piece]:
    request = GenerationRequest("r", ({"role": "user", "content": text},), sampling)
    async with aclosing(engine.stream(request)) as stream:
        return [piece async for piece in stream]


@pytest.mark.asyncio
async def test_a_random_model_writes_valid_json_among_free_neighbours(folder: Path) -> None:
    engine = TorchEngine(
        TorchEngineOptions(
            cache_dir=folder.parent,
            model=str(folder),
            slots=16,
            device="cpu",
            dtype="float32",
            context_tokens_max=1024,
        )
    )
    await engine.start()
    schemas = [schema for schema in FOLLOWED.values() for _ in range(2)]
    sampling = [
        params(schema, max_tokens=150, temperature=1.5 * (i % 2), seed=i)
        for i, schema in enumerate(schemas)
    ]
    free = SamplingParams(
        temperature=1.0, seed=5, repetition_penalty=1.2, logprobs=True, top_logprobs=3
    )
    alone = await read(engine, free)
    *constrained, beside = await asyncio.gather(*(read(engine, s) for s in [*sampling, free]))
    assert "".join(p.text for p in alone) == "".join(p.text for p in beside)
    ends = set()
    for schema, pieces in zip(schemas, constrained, strict=True):
        text, reason = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
        ends.add(reason)
        assert reason in ("stop", "length")
        if reason == "stop":
            Draft202012Validator(schema).validate(json.loads(text))
    assert "stop" in ends
    with pytest.raises(EventInvalid, match="multipleOf"):
        await read(engine, params(REFUSED["multipleOf"]))
    told = [logprob for piece in alone for logprob in piece.logprobs]
    ended = alone[-1].finish_reason == "stop"
    assert len(told) == alone[-1].completion_tokens - ended
    assert b"".join(t.raw for t in told).decode(errors="replace") == "".join(
        piece.text for piece in alone
    )
    assert all(len(t.top) == 3 and t.logprob <= t.top[0].logprob <= 0.0 for t in told)
    await engine.close()
