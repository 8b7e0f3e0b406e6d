"""The words of JSON Schema that can be used, and what may stand beside each."""

from __future__ import annotations

import json
from typing import Any, Final

from schemas.errors import EventInvalid

Schema = dict[str, Any]

COUNT_MAX: Final = 10_000
BOUND_MAX: Final = 2**53

NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly"}
)
_NUMBER: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
OF_TYPE: Final[dict[str, frozenset[str]]] = {
    "object": frozenset(
        {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": frozenset(),
    "null": frozenset(),
}
_PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
# Others are notes to the reader, as the standard allows.
FORMATS: Final = frozenset({"date", "time", "date-time", "uuid", "ipv4"})
_COUNTS: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def refused(place: str, fault: str) -> EventInvalid:
    """What to raise for a fault at a place such as `$.properties.age`."""
    return EventInvalid(
        f"The JSON Schema cannot be followed: at {place}, {fault}.",
        "Change it, or leave it out and check the answer yourself.",
    )


def kinds_of(schema: Schema, place: str) -> list[str]:
    """The JSON types of a schema's values. Raises EventInvalid where it does not say."""
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or any(not isinstance(kind, str) or kind not in OF_TYPE for kind in kinds):
        raise refused(place, "type is missing or none of JSON's")
    return kinds


def checked_enum(schema: Schema, place: str) -> Schema:
    """The schema of one or several values. Raises EventInvalid for one not of its own type."""
    values = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(values, list) or not values or {"const", "enum"} <= set(schema):
        raise refused(place, "enum is no list of values")
    kinds = kinds_of(schema, place) if "type" in schema else list(_PYTHON_TYPES)
    for value in values:
        truth = isinstance(value, bool)
        if not any(
            isinstance(value, _PYTHON_TYPES[kind]) and truth <= (kind == "boolean")
            for kind in kinds
        ):
            raise refused(place, f"{json.dumps(value)} is not of the type")
    return {"enum": values}


def check_numbers(checked: Schema, place: str) -> None:
    """Raises EventInvalid for counts and bounds that are none, or that the library gets wrong."""
    for word in _COUNTS:
        count = checked.get(word, 0)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= COUNT_MAX:
            raise refused(place, f"{word} is not 0 to {COUNT_MAX}")
    for word in _NUMBER & set(checked):
        bound = checked[word]
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise refused(place, f"{word} is no number")
        if isinstance(bound, float) and ("e" in repr(bound) or round(bound, 6) != bound):
            raise refused(place, f"{word} has over 6 decimals or an exponent")
        if abs(bound) > BOUND_MAX:
            raise refused(place, f"{word} is beyond {BOUND_MAX}")
