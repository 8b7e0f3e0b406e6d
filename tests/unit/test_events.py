"""Events and their JSON: what is accepted, what is refused and how it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from event_strategies import events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from schemas import codec, limits
from schemas.errors import EventInvalid
from schemas.events import Document, Feedback, Message, Prompt, Retrieval, Sampling
from schemas.topics import (
    DEAD_LETTERS,
    DOCUMENTS,
    FEEDBACK,
    GENERATIONS,
    MODEL_UPDATES,
    PASSAGES,
    PROMPTS,
    TOKENS,
    TOPICS,
    Topic,
)

PROMPT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PASSAGE: dict[str, Any] = {
    "passage_id": "a#0",
    "document_id": "a",
    "index": 0,
    "text": "a text",
    "embedding": "AAAAAA==",
    "embedder": "minilm",
    "published_ms": 0,
}
UPDATE: dict[str, Any] = {
    "adapter": "default",
    "model_version": "v1",
    "origin": "online",
    "published_ms": 0,
}
by_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
# Generating large structs is slow on a busy machine, which is no reason to fail.
patiently = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=50)


def decoded(topic: Topic, value: Any) -> Any:
    return codec.decode(topic, json.dumps(value, ensure_ascii=False).encode())


@by_topic
@patiently
@given(data=st.data())
def test_what_is_encoded_is_decoded_again(topic: Topic, data: st.DataObject) -> None:
    event = data.draw(events(topic.event))
    assert codec.decode(topic, codec.encode(event)) == event


def test_a_bare_prompt_takes_every_default() -> None:
    assert decoded(PROMPTS, PROMPT) == Prompt([Message("user", "hi")])
    assert decoded(PROMPTS, PROMPT).sampling == Sampling(max_tokens=256, temperature=0.0)
    assert decoded(PROMPTS, PROMPT).retrieval == Retrieval(top_k=4, mode="fused")


def test_a_bare_document_is_its_text() -> None:
    assert decoded(DOCUMENTS, {"text": "x"}) == Document("x", media_type="text/plain")


def test_defaults_are_left_out_of_the_json() -> None:
    assert codec.encode(Document("x")) == b'{"text":"x"}'


def test_unknown_fields_are_ignored() -> None:
    newer = PROMPT | {"mood": {"deep": [1]}, "sampling": {"beams": 4}}
    assert decoded(PROMPTS, newer) == decoded(PROMPTS, PROMPT)


def test_events_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Document("x").text = "y"  # type: ignore[misc]


LIMITS: list[tuple[Topic, dict[str, Any], str, Any, Any]] = [
    # topic, the rest of the event, field, the last value accepted, the first one refused
    (DOCUMENTS, {}, "text", "é" * limits.DOCUMENT_CHARS_MAX, "é" * (limits.DOCUMENT_CHARS_MAX + 1)),
    (DOCUMENTS, {"text": ""}, "document_id", "i" * 256, "i" * 257),
    (DOCUMENTS, {"text": ""}, "document_id", "i", ""),
    (DOCUMENTS, {"text": ""}, "title", "t" * 1000, "t" * 1001),
    (DOCUMENTS, {"text": ""}, "source", "s" * 2000, "s" * 2001),
    (DOCUMENTS, {"text": ""}, "media_type", "text/html", "image/png"),
    (
        DOCUMENTS,
        {"text": ""},
        "metadata",
        {str(n): n for n in range(64)},
        {str(n): n for n in range(65)},
    ),
    (PROMPTS, {}, "messages", PROMPT["messages"] * 256, PROMPT["messages"] * 257),
    (PROMPTS, {}, "messages", PROMPT["messages"], []),
    (PROMPTS, PROMPT, "reply_partition", 0, -1),
    (PROMPTS, PROMPT, "reply_partition", 100_000, 100_001),
    (PASSAGES, PASSAGE, "index", 0, -1),
    (PASSAGES, PASSAGE, "passage_id", "p" * 300, "p" * 301),
    (PASSAGES, PASSAGE, "text", "x" * 20_000, "x" * 20_001),
    (FEEDBACK, {}, "rating", -1.0, -1.01),
    (FEEDBACK, {}, "rating", 1, 1.01),
    (FEEDBACK, {}, "correction", "c", ""),
    (FEEDBACK, {}, "correction", "c" * 100_000, "c" * 100_001),
    (MODEL_UPDATES, UPDATE, "artifact_sha256", "0f" * 32, "0F" * 32),
]


@pytest.mark.parametrize(
    ("topic", "rest", "field", "last", "over"),
    LIMITS,
    ids=[f"{topic.name}.{field}-{n}" for n, (topic, _, field, _, _) in enumerate(LIMITS)],
)
def test_a_limit_holds_to_the_last_unit(
    topic: Topic, rest: dict[str, Any], field: str, last: Any, over: Any
) -> None:
    decoded(topic, rest | {field: last})
    with pytest.raises(EventInvalid, match=rf"\$\.{field}\b"):
        decoded(topic, rest | {field: over})


@pytest.mark.parametrize(
    ("nested", "field"),
    [
        ({"messages": [{"role": "oracle", "content": ""}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "user", "content": "x" * 100_001}]}, r"messages\[0\].content"),
        (PROMPT | {"sampling": {"max_tokens": 0}}, "sampling.max_tokens"),
        (PROMPT | {"sampling": {"max_tokens": 8_193}}, "sampling.max_tokens"),
        (PROMPT | {"sampling": {"temperature": 2.5}}, "sampling.temperature"),
        (PROMPT | {"sampling": {"top_p": 0}}, "sampling.top_p"),
        (PROMPT | {"sampling": {"seed": 2**53}}, "sampling.seed"),
        (PROMPT | {"sampling": {"stop": ["x"] * 17}}, "sampling.stop"),
        (PROMPT | {"sampling": {"stop": [""]}}, r"sampling.stop\[0\]"),
        (PROMPT | {"retrieval": {"top_k": 51}}, "retrieval.top_k"),
        (PROMPT | {"retrieval": {"mode": "psychic"}}, "retrieval.mode"),
        (PROMPT | {"retrieval": {"score_floor": 1.5}}, "retrieval.score_floor"),
    ],
)
def test_a_wrong_field_deep_inside_is_named(nested: dict[str, Any], field: str) -> None:
    with pytest.raises(EventInvalid, match=field):
        decoded(PROMPTS, nested)


def test_feedback_must_say_something() -> None:
    with pytest.raises(EventInvalid, match="one of rating, correction, labels"):
        decoded(FEEDBACK, {"prompt_id": "p"})
    with pytest.raises(ValueError, match="one of rating, correction, labels"):
        Feedback("p")
    assert decoded(FEEDBACK, {"rating": 0}) == Feedback(rating=0.0)


@pytest.mark.parametrize(
    "topic", [PROMPTS, TOKENS, GENERATIONS, DEAD_LETTERS], ids=lambda t: t.name
)
def test_a_value_over_its_topics_size_is_refused_unread(topic: Topic) -> None:
    with pytest.raises(EventInvalid, match=f"{topic.record_bytes_max:,}"):
        codec.decode(topic, b" " * (topic.record_bytes_max + 1))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"text":',
        b'{"text":1}',
        b'{"text":"\xff"}',
        rb'{"text":"\ud800"}',
        b'{"text":"x","metadata":{"n":1e999}}',
        b'{"text":"x","x":' + b"[" * 100_000,
        b"\x00" * 9,
    ],
)
def test_what_is_no_document_is_event_invalid(value: bytes) -> None:
    with pytest.raises(EventInvalid, match="Document") as caught:
        codec.decode(DOCUMENTS, value)
    assert "contracts show documents" in caught.value.remedy


@by_topic
@patiently
@given(
    value=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda found: json.dumps(found).encode())
)
def test_arbitrary_bytes_raise_nothing_else(topic: Topic, value: bytes) -> None:
    try:
        codec.decode(topic, value)
    except EventInvalid as error:
        assert error.message and error.remedy


@by_topic
@patiently
@given(data=st.data())
def test_a_cut_or_bent_event_raises_nothing_else(topic: Topic, data: st.DataObject) -> None:
    value = bytearray(codec.encode(data.draw(events(topic.event))))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] = data.draw(st.integers(0, 255))
    try:
        codec.decode(topic, bytes(value))
    except EventInvalid as error:
        assert error.message and error.remedy


@pytest.mark.parametrize(
    "event",
    [Document("\ud800"), Document("x", metadata={"what": object()})],  # type: ignore[dict-item]
    ids=["half a surrogate pair", "no JSON"],
)
def test_what_cannot_be_json_is_event_invalid(event: Document) -> None:
    with pytest.raises(EventInvalid, match="Document"):
        codec.encode(event)


def unlimited(kind: inspect.Type, path: str) -> Iterator[str]:
    """Paths of texts, bytes, lists and mappings without a greatest length."""
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                yield from unlimited(field.type, f"{path}.{field.name}")
        case inspect.UnionType():
            for option in kind.types:
                yield from unlimited(option, path)
        case inspect.TupleType():
            for item in kind.item_types:
                yield from unlimited(item, path)
        case inspect.ListType():
            yield from [path] if kind.max_length is None else []
            yield from unlimited(kind.item_type, f"{path}[]")
        case inspect.DictType():
            yield from [path] if kind.max_length is None else []
            yield from unlimited(kind.key_type, f"{path}.*")
            yield from unlimited(kind.value_type, f"{path}.*")
        case inspect.StrType() | inspect.BytesType():
            yield from [path] if kind.max_length is None else []


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_text_list_and_mapping_has_a_stated_limit(topic: Topic) -> None:
    assert list(unlimited(inspect.type_info(topic.event), topic.name)) == []
