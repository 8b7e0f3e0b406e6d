"""Which JSON Schemas can be followed to the letter, and what the grammar library gets for them.

xgrammar 0.2.8 skips keywords that it does not know, and follows some combinations wrongly or at a
great cost. What a test has not seen it follow is refused here, so that a text which it lets through
is valid under the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from models.engine.json_patterns import pattern_fault
from schemas.errors import EventInvalid

Schema = dict[str, Any]

SCHEMA_BYTES_MAX: Final = 16_384
DEPTH_MAX: Final = 32
# Each different length or pattern of a string takes up to 2 s to compile.
STRING_SHAPES_MAX: Final = 8
LENGTH_MAX: Final = 10_000

_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly"}
)
_NUMBER: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_OF_TYPE: Final[dict[str, frozenset[str]]] = {
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
_FORMATS: Final = frozenset({"date", "time", "date-time", "uuid", "ipv4"})
_COUNTS: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def followable(text: str) -> str:
    """The schema (JSON) as the grammar library gets it. Raises EventInvalid, naming the place.

    Objects that allow unnamed properties beside named ones are held to the named ones: what is
    valid under that is valid under the schema, too.
    """
    if len(text.encode()) > SCHEMA_BYTES_MAX:
        raise _refused("$", f"it has over {SCHEMA_BYTES_MAX} bytes")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused("$", f"it is no JSON ({error})") from error
    if not isinstance(schema, dict):
        raise _refused("$", "it is no object")
    return json.dumps(_Check(schema).root())


def _refused(place: str, fault: str) -> EventInvalid:
    return EventInvalid(
        f"The JSON Schema cannot be followed: at {place}, {fault}.",
        "Change it, or leave it out and check the answer yourself.",
    )


class _Check:
    """One walk through one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._shapes: set[tuple[Any, ...]] = set()

    def root(self) -> Schema:
        checked = self._any(self._schema, "$", 0)
        for name in ("$defs", "definitions"):
            if name in self._schema:
                checked[name] = self._each(self._schema[name], f"$.{name}", 0)
                for key in self._schema[name]:
                    self._ends(f"#/{name}/{key}", ())
        self._ends("#", ())
        return checked

    def _any(self, schema: Any, place: str, depth: int) -> Schema:
        if schema is True:
            return {}
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            raise _refused(place, f"there is no schema, or one over {DEPTH_MAX} levels deep")
        if depth and {"$defs", "definitions", "$id"} & set(schema):
            raise _refused(place, "definitions stand elsewhere than at the top")
        words = set(schema) - _NOTES
        for word, check in (("$ref", self._ref), ("enum", self._enum), ("const", self._enum)):
            if word in words:
                self._only(words, {word} | ({"type"} if word != "$ref" else set()), place)
                return check(schema, place)
        if "anyOf" in words:
            self._only(words, {"anyOf"}, place)
            return {"anyOf": self._list(schema["anyOf"], f"{place}.anyOf", depth)}
        return self._typed(schema, words, place, depth) if words else {}

    def _typed(self, schema: Schema, words: set[str], place: str, depth: int) -> Schema:
        kinds = _kinds(schema, place)
        self._only(words, {"type"}.union(*(_OF_TYPE[kind] for kind in kinds)), place)
        checked = {word: schema[word] for word in words}
        self._counts(checked, place)
        if "string" in kinds:
            self._string(checked, place)
        if "array" in kinds:
            self._array(checked, place, depth)
        if "object" in kinds:
            self._object(checked, place, depth)
        return checked

    def _only(self, words: set[str], known: set[str], place: str) -> None:
        if unknown := sorted(words - known):
            raise _refused(place, f"{', '.join(unknown)} cannot be used (here)")

    def _ref(self, schema: Schema, place: str) -> Schema:
        self._target(schema["$ref"], place)
        return {"$ref": schema["$ref"]}

    def _target(self, ref: Any, place: str) -> Any:
        if ref == "#":
            return self._schema
        parts = ref.split("/") if isinstance(ref, str) else []
        if len(parts) == 3 and parts[0] == "#" and parts[1] in ("$defs", "definitions"):
            group = self._schema.get(parts[1])
            if isinstance(group, dict) and parts[2] in group:
                return group[parts[2]]
        raise _refused(place, f"$ref {ref!r} names nothing under #/$defs")

    def _ends(self, ref: str, before: tuple[str, ...]) -> None:
        """A definition that is itself again, without a value in between, has no meaning."""
        if ref in before:
            raise _refused(ref, "it is defined as itself")
        for inner in _same_value_refs(self._target(ref, ref)):
            self._ends(inner, (*before, ref))

    def _enum(self, schema: Schema, place: str) -> Schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values or {"const", "enum"} <= set(schema):
            raise _refused(place, "enum is no list of values")
        kinds = _kinds(schema, place) if "type" in schema else list(_PYTHON_TYPES)
        for value in values:
            truth = isinstance(value, bool)
            if not any(
                isinstance(value, _PYTHON_TYPES[kind]) and truth <= (kind == "boolean")
                for kind in kinds
            ):
                raise _refused(place, f"{json.dumps(value)} is not of the type")
        return {"enum": values}

    def _counts(self, checked: Schema, place: str) -> None:
        for word in _COUNTS:
            count = checked.get(word, 0)
            if not isinstance(count, int) or not 0 <= count <= LENGTH_MAX:
                raise _refused(place, f"{word} is not 0 to {LENGTH_MAX}")
        for word in _NUMBER & set(checked):
            bound = checked[word]
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise _refused(place, f"{word} is no number")
            if isinstance(bound, float) and ("e" in repr(bound) or round(bound, 6) != bound):
                raise _refused(place, f"{word} has over 6 decimals or an exponent")

    def _string(self, checked: Schema, place: str) -> None:
        if checked.get("format") not in _FORMATS:
            checked.pop("format", None)
        shaped = [w for w in ("pattern", "format") if w in checked]
        sized = [w for w in ("minLength", "maxLength") if w in checked]
        if len(shaped) > 1 or (shaped and sized):
            raise _refused(place, "pattern, format and lengths exclude each other")
        if fault := pattern_fault(checked.get("pattern", "^$")):
            raise _refused(place, f"pattern {fault}")
        if "pattern" in checked or sized:
            self._shapes.add(tuple(checked.get(w) for w in ("minLength", "maxLength", "pattern")))
        if len(self._shapes) > STRING_SHAPES_MAX:
            raise _refused(place, f"there are over {STRING_SHAPES_MAX} different lengths, patterns")

    def _array(self, checked: Schema, place: str, depth: int) -> None:
        if "prefixItems" in checked:
            prefix = checked["prefixItems"] = self._list(checked["prefixItems"], place, depth)
            if checked.get("maxItems", LENGTH_MAX) < len(prefix):
                raise _refused(place, "maxItems is less than prefixItems")
        if checked.get("items") is not False:
            checked["items"] = self._any(checked.get("items", True), f"{place}.items", depth + 1)

    def _object(self, checked: Schema, place: str, depth: int) -> None:
        if "properties" in checked:
            properties = self._each(checked["properties"], f"{place}.properties", depth)
            checked["properties"] = properties
        named, required = checked.get("properties", {}), checked.get("required", [])
        if not isinstance(required, list) or not {*map(str, required)} <= set(named):
            raise _refused(place, "required names what properties does not")
        others = checked.pop("additionalProperties", True)
        if named or others is False:
            # Beside named ones, the library would also let a named one through as unnamed.
            checked["additionalProperties"] = False
        else:
            # It would count a name that comes twice as two.
            if checked.get("minProperties", 0) > 1:
                raise _refused(place, "minProperties over 1 needs named properties")
            checked["additionalProperties"] = (
                self._any(others, f"{place}.additionalProperties", depth + 1) or True
            )

    def _each(self, schemas: Any, place: str, depth: int) -> Schema:
        if not isinstance(schemas, dict):
            raise _refused(place, "it is no object")
        return {
            name: self._any(schema, f"{place}.{name}", depth + 1)
            for name, schema in schemas.items()
        }

    def _list(self, schemas: Any, place: str, depth: int) -> list[Schema]:
        if not isinstance(schemas, list) or not schemas:
            raise _refused(place, "it is no list of schemas")
        return [self._any(s, f"{place}[{i}]", depth + 1) for i, s in enumerate(schemas)]


def _kinds(schema: Schema, place: str) -> list[str]:
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or any(not isinstance(kind, str) or kind not in _OF_TYPE for kind in kinds):
        raise _refused(place, "type is missing or none of JSON's")
    return kinds


def _same_value_refs(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for option in schema.get("anyOf", []):
            yield from _same_value_refs(option)
