"""Imports modules as if one extra of pyproject.toml were all that is installed.

`python only_extra.py EXTRA MODULE…` is a process in which nothing else can be found.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def needed(extra: str) -> set[str]:
    """The distributions that the project with `extra` brings, directly or not."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    found: set[tuple[str, str]] = set()
    while waiting:
        wanted = Requirement(waiting.pop())
        for chosen in {"", *wanted.extras}:
            key = (canonicalize_name(wanted.name), chosen)
            if key not in found:
                found.add(key)
                waiting += _needs(*key)
    return {name for name, _ in found}


def _needs(name: str, extra: str) -> list[str]:
    try:
        told = requires(name) or []
    except PackageNotFoundError:
        # For another platform.
        return []
    return [one for one in told if _applies(Requirement(one), extra)]


def _applies(wanted: Requirement, extra: str) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def hide_others(names: set[str]) -> None:
    """Makes modules of all other distributions impossible to find."""
    owners = packages_distributions()
    hidden = {
        module
        for module, of in owners.items()
        if not {canonicalize_name(one) for one in of} & names
    }

    class Finder(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: object = None
        ) -> ModuleSpec | None:
            if fullname.partition(".")[0] in hidden:
                return None
            return PathFinder.find_spec(fullname, path)

    sys.meta_path[:] = [Finder if one is PathFinder else one for one in sys.meta_path]


if __name__ == "__main__":
    hide_others(needed(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
