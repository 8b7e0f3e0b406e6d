"""Does a reader of one JSON Schema accept everything that a writer of another may write?

Asked both ways it finds each change that breaks an older reader or an older writer. Only the parts
of JSON Schema that msgspec emits are understood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]

# A reader's lower bounds must not be above the writer's, nor its upper bounds below.
_LOWER: Final = ("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum")
_UPPER: Final = ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum")
_SAME: Final = ("pattern", "contentEncoding", "format")


@dataclass(frozen=True, slots=True)
class Break:
    """One incompatibility: where (`prompts.sampling.max_tokens`), for whom, and what."""

    field: str
    breaks: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: breaks an older {self.breaks}: {self.reason}"


def breaking_changes(name: str, old: Schema, new: Schema) -> list[Break]:
    """Every way in which `new` breaks readers or writers that still use `old`."""
    older_reader = _Pair(reader=old, writer=new, older="reader")
    older_writer = _Pair(reader=new, writer=old, older="writer")
    found = [*older_writer.problems(name, new, old), *older_reader.problems(name, old, new)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Pair:
    reader: Schema
    writer: Schema
    older: str

    def problems(self, path: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        reader_kinds = dict(_alternatives(self.reader, reader))
        for kind, written in _alternatives(self.writer, writer):
            accepted = reader_kinds.get(kind) or (
                reader_kinds.get("number") if kind == "integer" else None
            )
            if accepted is None:
                takes = ", ".join(sorted(reader_kinds))
                yield Break(path, self.older, f"{kind} is written where {takes} is read")
            else:
                yield from self._same_kind(path, kind, accepted, written)

    def _same_kind(self, path: str, kind: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        yield from self._bounds(path, reader, writer)
        yield from self._values(path, reader, writer)
        if kind == "object":
            yield from self._fields(path, reader, writer)
        if isinstance(reader.get("items"), dict) and isinstance(writer.get("items"), dict):
            yield from self.problems(f"{path}[]", reader["items"], writer["items"])
        for index, (inner, outer) in enumerate(
            zip(reader.get("prefixItems", []), writer.get("prefixItems", []), strict=False)
        ):
            yield from self.problems(f"{path}[{index}]", inner, outer)

    def _bounds(self, path: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        for names, tighter in ((_LOWER, 1), (_UPPER, -1)):
            for name in (name for name in names if name in reader):
                ours, theirs = reader[name], writer.get(name)
                if theirs is None or (ours - theirs) * tighter > 0:
                    yield Break(path, self.older, f"{name} {ours} is read, {theirs} is written")
        for name in _SAME:
            if name in reader and reader[name] != writer.get(name):
                yield Break(
                    path, self.older, f"{name} {reader[name]} is read, {writer.get(name)} written"
                )

    def _values(self, path: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        readable = _enumerated(reader)
        if readable is None:
            return
        written = _enumerated(writer)
        if written is None:
            yield Break(path, self.older, f"only {sorted(map(str, readable))} are read")
        elif extra := [value for value in written if value not in readable]:
            yield Break(path, self.older, f"unknown values are written: {extra}")

    def _fields(self, path: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        readable: Schema = reader.get("properties", {})
        written: Schema = writer.get("properties", {})
        always_written = set(writer.get("required", []))
        for name in reader.get("required", []):
            if name in readable and name not in always_written:
                reason = "the field is required but may be left out"
                yield Break(f"{path}.{name}", self.older, reason)
        for name, field in written.items():
            if name in readable:
                yield from self._defaults(f"{path}.{name}", readable[name], field)
                yield from self.problems(f"{path}.{name}", readable[name], field)
            elif self.older == "writer":
                reason = "the field is gone, so what is sent in it is dropped in silence"
                yield Break(f"{path}.{name}", self.older, reason)
        if isinstance(reader.get("additionalProperties"), dict):
            names = reader.get("propertyNames", {}), writer.get("propertyNames", {})
            yield from self._bounds(f"{path}.*", *names)
            inner = writer.get("additionalProperties")
            if isinstance(inner, dict):
                yield from self.problems(f"{path}.*", reader["additionalProperties"], inner)

    def _defaults(self, path: str, reader: Schema, writer: Schema) -> Iterator[Break]:
        # Fields at their default are left out, so both sides must agree on what absence means.
        if "default" in reader and "default" in writer and reader["default"] != writer["default"]:
            reason = (
                f"a field left out means {reader['default']!r} to one and "
                f"{writer['default']!r} to the other"
            )
            yield Break(path, self.older, reason)


def _alternatives(root: Schema, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Each JSON type that a schema allows, with the schema of that alternative."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        yield from _alternatives(root, target)
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _alternatives(root, option)
    else:
        kinds = schema.get("type", _kind_of(schema))
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            yield kind, schema


def _kind_of(schema: Schema) -> str:
    values = _enumerated(schema) or []
    return "string" if values and all(isinstance(value, str) for value in values) else "any"


def _enumerated(schema: Schema) -> list[Any] | None:
    if "enum" in schema:
        return list(schema["enum"])
    return [schema["const"]] if "const" in schema else None
