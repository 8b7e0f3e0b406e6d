"""What the commands share: output for people or programs, and the way errors leave."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Coroutine
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console

from schemas.errors import EventInvalid
from schemas.topics import BY_NAME, Topic

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(coroutine)


def print_json(value: Any) -> None:
    """One JSON object on a line of its own, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def topic_named(name: str) -> Topic:
    """The topic of that name; raises EventInvalid with the nearest names."""
    check_known(name, BY_NAME, "topic")
    return BY_NAME[name]


def check_known(name: str, known: Collection[str], what: str) -> None:
    """Raises EventInvalid for a name that there is not, with the nearest and all that there are."""
    if name in known:
        return
    near = get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise EventInvalid(
        f"There is no {what} {name!r}.", f"{hint}The {what}s are {', '.join(known)}."
    )


def pairs(given: list[str], what: str) -> dict[str, str]:
    """`["a=1"]` as a dict; raises EventInvalid for what has no `=`."""
    for item in given:
        if "=" not in item:
            raise EventInvalid(f"{item!r} is no {what}.", f"Write --{what} NAME=VALUE.")
    return dict(item.split("=", 1) for item in given)


def scalars(given: list[str], what: str) -> dict[str, str | int | float | bool]:
    """The same with numbers, true and false as what they are: `n=1` is the number, `n="1"` text."""
    return {name: _scalar(value) for name, value in pairs(given, what).items()}


def _scalar(value: str) -> str | int | float | bool:
    try:
        return msgspec.json.decode(value, type=str | int | float | bool)
    except msgspec.DecodeError:
        return value
