"""Each kind of change that breaks somebody is found, and the field is named."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import contracts
from schemas.compatibility import Schema, breaking_changes
from schemas.topics import PROMPTS, TOPICS, Topic

OLD: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "mode": {"enum": ["fused", "dense"], "default": "fused"},
        "top_k": {"type": "integer", "minimum": 0, "maximum": 50, "default": 4},
        "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "stop": {"type": "array", "items": {"type": "string", "maxLength": 9}, "default": []},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": 9},
            "propertyNames": {"maxLength": 200},
            "default": {},
        },
    },
    "required": ["id"],
}


def edited(**fields: Any) -> Schema:
    """The old schema with some properties replaced; None removes one."""
    new = deepcopy(OLD)
    for name, field in fields.items():
        new["properties"].pop(name)
        if field is not None:
            new["properties"][name] = field
    new["required"] = [name for name in new["required"] if name in new["properties"]]
    return new


def requiring(name: str, field: Schema) -> Schema:
    new = deepcopy(OLD)
    new["properties"][name] = field
    new["required"].append(name)
    return new


def found(new: Schema) -> set[tuple[str, str]]:
    """The fields that break, each with whom it breaks."""
    return {(item.field, item.breaks) for item in breaking_changes("t", OLD, new)}


def test_a_removed_field_loses_what_older_writers_send() -> None:
    assert found(edited(title=None)) == {("t.title", "writer")}


def test_a_removed_required_field_also_breaks_older_readers() -> None:
    assert found(edited(id=None)) == {("t.id", "reader"), ("t.id", "writer")}


def test_a_new_required_field_breaks_older_writers() -> None:
    assert found(requiring("user", {"type": "string"})) == {("t.user", "writer")}


def test_a_field_made_required_breaks_older_writers() -> None:
    assert ("t.title", "writer") in found(requiring("title", {"type": "string"}))


def test_a_changed_type_breaks_both() -> None:
    assert found(edited(id={"type": "integer"})) == {("t.id", "reader"), ("t.id", "writer")}


def test_a_nullable_field_made_plain_breaks_older_writers() -> None:
    assert ("t.title", "writer") in found(edited(title={"type": "string", "default": None}))


def test_an_integer_widened_to_a_number_breaks_older_readers_only() -> None:
    number = OLD["properties"]["top_k"] | {"type": "number"}
    assert found(edited(top_k=number)) == {("t.top_k", "reader")}


@pytest.mark.parametrize(
    ("field", "tighter"),
    [
        ("id", {"maxLength": 255}),
        ("id", {"minLength": 2}),
        ("id", {"pattern": "^[a-z]+$"}),
        ("top_k", {"maximum": 49}),
        ("top_k", {"minimum": 1}),
        ("top_k", {"exclusiveMinimum": 0}),
        ("stop", {"maxItems": 16}),
        ("labels", {"maxProperties": 16}),
    ],
)
def test_a_tightened_limit_breaks_older_writers(field: str, tighter: Schema) -> None:
    new = edited(**{field: OLD["properties"][field] | tighter})
    assert found(new) == {(f"t.{field}", "writer")}


@pytest.mark.parametrize(
    ("field", "looser"),
    [("id", {"maxLength": 257}), ("id", {"minLength": 0}), ("top_k", {"maximum": 51})],
)
def test_a_loosened_limit_breaks_older_readers(field: str, looser: Schema) -> None:
    new = edited(**{field: OLD["properties"][field] | looser})
    assert found(new) == {(f"t.{field}", "reader")}


def test_a_limit_taken_away_breaks_older_readers() -> None:
    assert found(edited(id={"type": "string", "minLength": 1})) == {("t.id", "reader")}


def test_an_added_value_is_unknown_to_older_readers() -> None:
    wider = {"enum": ["fused", "dense", "keyword"], "default": "fused"}
    (item,) = breaking_changes("t", OLD, edited(mode=wider))
    assert str(item) == ("t.mode: breaks an older reader: unknown values are written: ['keyword']")


def test_a_removed_value_may_still_come_from_older_writers() -> None:
    assert found(edited(mode={"enum": ["fused"], "default": "fused"})) == {("t.mode", "writer")}


def test_values_made_free_text_are_unknown_to_older_readers() -> None:
    assert found(edited(mode={"type": "string", "default": "fused"})) == {("t.mode", "reader")}


def test_a_changed_default_means_something_else_to_the_other_side() -> None:
    new = edited(top_k=OLD["properties"]["top_k"] | {"default": 5})
    assert found(new) == {("t.top_k", "reader"), ("t.top_k", "writer")}


@pytest.mark.parametrize(
    ("field", "inner", "where"),
    [
        ("stop", {"items": {"type": "string", "maxLength": 8}}, "t.stop[]"),
        ("labels", {"additionalProperties": {"type": "string", "maxLength": 8}}, "t.labels.*"),
        ("labels", {"propertyNames": {"maxLength": 199}}, "t.labels.*"),
    ],
    ids=["of a list", "of a mapping's values", "of a mapping's names"],
)
def test_a_limit_inside_is_found(field: str, inner: Schema, where: str) -> None:
    assert found(edited(**{field: OLD["properties"][field] | inner})) == {(where, "writer")}


def test_a_change_behind_a_reference_is_named_by_its_path() -> None:
    old = contracts.topic_schema(PROMPTS)
    new = deepcopy(old)
    new["$defs"]["Sampling"]["properties"]["max_tokens"]["maximum"] = 16
    (item,) = breaking_changes("prompts", old, new)
    assert (item.field, item.breaks) == ("prompts.sampling.max_tokens", "writer")


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_contract_is_compatible_with_itself(topic: Topic) -> None:
    schema = contracts.topic_schema(topic)
    assert breaking_changes(topic.name, schema, deepcopy(schema)) == []


def _limited(kind: Any, meta: msgspec.Meta) -> Any:
    return Annotated[kind, meta]


def _list_of(kind: Any) -> Any:
    return list[kind]


def _mapping_to(kind: Any) -> Any:
    return dict[str, kind]


# The types that fields of events have, and limits that fit each.
PLAIN_TYPES = st.sampled_from([str, int, float, bool, bytes])
FIELD_TYPES = st.recursive(
    PLAIN_TYPES
    | st.integers(1, 99).map(lambda n: msgspec.Meta(max_length=n)).map(lambda m: _limited(str, m))
    | st.integers(1, 99).map(lambda n: msgspec.Meta(ge=0, le=n)).map(lambda m: _limited(int, m)),
    lambda inner: inner.map(_list_of) | inner.map(_mapping_to),
    max_leaves=3,
)
FIELDS = st.dictionaries(st.sampled_from("abcdef"), FIELD_TYPES, min_size=1)


def schema_of(fields: dict[str, Any], optional: dict[str, Any]) -> Schema:
    """The JSON Schema that msgspec gives for a struct of these fields."""
    shape: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        *fields.items(),
        *((name, kind | None, None) for name, kind in optional.items()),
    ]
    return msgspec.json.schema(msgspec.defstruct("Sample", shape))


@given(fields=FIELDS, optional=FIELDS)
def test_any_schema_is_compatible_with_itself(
    fields: dict[str, Any], optional: dict[str, Any]
) -> None:
    optional = {name.upper(): kind for name, kind in optional.items()}
    assert breaking_changes("t", schema_of(fields, optional), schema_of(fields, optional)) == []


@given(fields=FIELDS, optional=FIELDS)
def test_adding_optional_fields_never_breaks(
    fields: dict[str, Any], optional: dict[str, Any]
) -> None:
    optional = {name.upper(): kind for name, kind in optional.items()}
    assert breaking_changes("t", schema_of(fields, {}), schema_of(fields, optional)) == []


@given(fields=FIELDS, optional=FIELDS)
def test_removing_fields_always_breaks(fields: dict[str, Any], optional: dict[str, Any]) -> None:
    optional = {name.upper(): kind for name, kind in optional.items()}
    broken = breaking_changes("t", schema_of(fields, optional), schema_of(fields, {}))
    assert {item.field for item in broken} == {f"t.{name}" for name in optional}
