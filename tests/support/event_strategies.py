"""Hypothesis strategies for events, made from their types and limits."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from hypothesis import reject
from hypothesis import strategies as st
from msgspec import inspect

from schemas.events import Event

# Limits of hundreds of thousands of characters are tested elsewhere; here many shapes count.
_LENGTH_MAX: Final = 12
_INT_MAX: Final = 2**53


def events(kind: type[Event]) -> st.SearchStrategy[Any]:
    """Valid events of one type."""
    return _any_of(inspect.type_info(kind))


def _any_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            return _structs(kind)
        case inspect.UnionType():
            return st.one_of([_any_of(option) for option in kind.types])
        case inspect.ListType():
            return st.lists(_any_of(kind.item_type), **_sizes(kind))
        case inspect.TupleType():
            return st.tuples(*map(_any_of, kind.item_types))
        case inspect.DictType():
            return st.dictionaries(_any_of(kind.key_type), _any_of(kind.value_type), **_sizes(kind))
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case _:
            return _scalars(kind)


def _scalars(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True).map(str.strip)
        case inspect.StrType():
            return st.text(**_sizes(kind))
        case inspect.BytesType():
            return st.binary(**_sizes(kind))
        case inspect.IntType():
            low = -_INT_MAX if kind.ge is None else kind.ge
            return st.integers(low, _INT_MAX if kind.le is None else kind.le)
        case inspect.FloatType():
            return st.floats(
                kind.gt if kind.ge is None else kind.ge,
                kind.le,
                exclude_min=kind.gt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case inspect.BoolType():
            return st.booleans()
        case inspect.AnyType():
            # What JSON holds, not nested: its inside is nobody's contract.
            return st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3)
        case inspect.NoneType():
            return st.none()
        case _:
            raise NotImplementedError(kind)


def _sizes(kind: Any) -> dict[str, Any]:
    return {
        "min_size": kind.min_length or 0,
        "max_size": min(kind.max_length or _LENGTH_MAX, _LENGTH_MAX),
    }


@st.composite
def _structs(draw: st.DrawFn, kind: inspect.StructType) -> Any:
    required = {f.name: _any_of(f.type) for f in kind.fields if f.required}
    optional = {f.name: _any_of(f.type) for f in kind.fields if not f.required}
    fields = draw(st.fixed_dictionaries(required, optional=optional))
    try:
        return msgspec.convert(kind.cls(**fields), kind.cls)
    except ValueError:
        reject()
