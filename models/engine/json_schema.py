"""Which JSON Schemas can be followed to the letter, and what the grammar library gets for them.

xgrammar 0.2.8 skips keywords that it does not know, and follows some combinations wrongly or at a
great cost. What a test has not seen it follow is refused here, so that a text which it lets through
is valid under the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from models.engine.json_patterns import pattern_fault
from models.engine.json_words import (
    COUNT_MAX,
    FORMATS,
    NOTES,
    OF_TYPE,
    Schema,
    check_numbers,
    checked_enum,
    kinds_of,
    refused,
)

SCHEMA_BYTES_MAX: Final = 16_384
DEPTH_MAX: Final = 32
# Each different length or pattern of a string takes up to 2 s to compile.
STRING_SHAPES_MAX: Final = 8


def followable(text: str) -> str:
    """The schema (JSON) as the grammar library gets it. Raises EventInvalid, naming the place.

    Objects that allow unnamed properties beside named ones are held to the named ones: what is
    valid under that is valid under the schema, too.
    """
    if len(text.encode()) > SCHEMA_BYTES_MAX:
        raise refused("$", f"it has over {SCHEMA_BYTES_MAX} bytes")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused("$", f"it is no JSON ({error})") from error
    if not isinstance(schema, dict):
        raise refused("$", "it is no object")
    return json.dumps(_Check(schema).root())


class _Check:
    """One walk through one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._shapes: set[tuple[Any, ...]] = set()

    def root(self) -> Schema:
        checked = self._any(self._schema, "$", 0)
        named = {"#": checked}
        for group in ("$defs", "definitions"):
            if group in self._schema:
                checked[group] = self._each(self._schema[group], f"$.{group}", 0)
                named |= {f"#/{group}/{name}": inner for name, inner in checked[group].items()}
        try:
            TopologicalSorter(
                {ref: _same_value_refs(inner) for ref, inner in named.items()}
            ).prepare()
        except CycleError as error:
            # Without a value in between it has no meaning.
            raise refused(error.args[1][0], "it is defined as itself") from error
        return checked

    def _any(self, schema: Any, place: str, depth: int) -> Schema:
        if schema is True:
            return {}
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            raise refused(place, f"there is no schema, or one over {DEPTH_MAX} levels deep")
        if depth and {"$defs", "definitions", "$id"} & set(schema):
            raise refused(place, "definitions stand elsewhere than at the top")
        words = set(schema) - NOTES
        for word, check in (("$ref", self._ref), ("enum", checked_enum), ("const", checked_enum)):
            if word in words:
                self._only(words, {word} | ({"type"} if word != "$ref" else set()), place)
                return check(schema, place)
        if "anyOf" in words:
            self._only(words, {"anyOf"}, place)
            return {"anyOf": self._list(schema["anyOf"], f"{place}.anyOf", depth)}
        return self._typed(schema, words, place, depth) if words else {}

    def _typed(self, schema: Schema, words: set[str], place: str, depth: int) -> Schema:
        kinds = kinds_of(schema, place)
        self._only(words, {"type"}.union(*(OF_TYPE[kind] for kind in kinds)), place)
        checked = {word: schema[word] for word in words}
        check_numbers(checked, place)
        if "string" in kinds:
            self._string(checked, place)
        if "array" in kinds:
            self._array(checked, place, depth)
        if "object" in kinds:
            self._object(checked, place, depth)
        return checked

    def _only(self, words: set[str], known: set[str], place: str) -> None:
        if unknown := sorted(words - known):
            raise refused(place, f"{', '.join(unknown)} cannot be used (here)")

    def _ref(self, schema: Schema, place: str) -> Schema:
        ref = schema["$ref"]
        parts = ref.split("/") if isinstance(ref, str) else []
        local = len(parts) == 3 and parts[0] == "#" and parts[1] in ("$defs", "definitions")
        group = self._schema.get(parts[1]) if local else None
        if ref == "#" or (isinstance(group, dict) and parts[2] in group):
            return {"$ref": ref}
        raise refused(place, f"$ref {ref!r} names nothing under #/$defs")

    def _string(self, checked: Schema, place: str) -> None:
        if checked.get("format") not in FORMATS:
            checked.pop("format", None)
        shaped = [w for w in ("pattern", "format") if w in checked]
        sized = [w for w in ("minLength", "maxLength") if w in checked]
        if len(shaped) > 1 or (shaped and sized):
            raise refused(place, "pattern, format and lengths exclude each other")
        if fault := pattern_fault(checked.get("pattern", "^$")):
            raise refused(place, f"pattern {fault}")
        if "pattern" in checked or sized:
            self._shapes.add(tuple(checked.get(w) for w in ("minLength", "maxLength", "pattern")))
        if len(self._shapes) > STRING_SHAPES_MAX:
            raise refused(place, f"there are over {STRING_SHAPES_MAX} different lengths, patterns")

    def _array(self, checked: Schema, place: str, depth: int) -> None:
        if "prefixItems" in checked:
            prefix = checked["prefixItems"] = self._list(checked["prefixItems"], place, depth)
            if checked.get("maxItems", COUNT_MAX) < len(prefix):
                raise refused(place, "maxItems is less than prefixItems")
        if checked.get("items") is not False:
            checked["items"] = self._any(checked.get("items", True), f"{place}.items", depth + 1)

    def _object(self, checked: Schema, place: str, depth: int) -> None:
        if "properties" in checked:
            properties = self._each(checked["properties"], f"{place}.properties", depth)
            checked["properties"] = properties
        named, required = checked.get("properties", {}), checked.get("required", [])
        if not isinstance(required, list) or not {*map(str, required)} <= set(named):
            raise refused(place, "required names what properties does not")
        others = checked.pop("additionalProperties", True)
        if named or others is False:
            # Beside named ones, the library would also let a named one through as unnamed.
            checked["additionalProperties"] = False
        else:
            # It would count a name that comes twice as two.
            if checked.get("minProperties", 0) > 1:
                raise refused(place, "minProperties over 1 needs named properties")
            checked["additionalProperties"] = (
                self._any(others, f"{place}.additionalProperties", depth + 1) or True
            )

    def _each(self, schemas: Any, place: str, depth: int) -> Schema:
        if not isinstance(schemas, dict):
            raise refused(place, "it is no object")
        return {
            name: self._any(schema, f"{place}.{name}", depth + 1)
            for name, schema in schemas.items()
        }

    def _list(self, schemas: Any, place: str, depth: int) -> list[Schema]:
        if not isinstance(schemas, list) or not schemas:
            raise refused(place, "it is no list of schemas")
        return [self._any(s, f"{place}[{i}]", depth + 1) for i, s in enumerate(schemas)]


def _same_value_refs(schema: Schema) -> Iterator[str]:
    """What a value has to be as well; with anyOf, may have to be."""
    if "$ref" in schema:
        yield schema["$ref"]
    for option in schema.get("anyOf", []):
        yield from _same_value_refs(option)
