"""In which order parts start."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from infra.part import Part
from schemas.errors import SettingsInvalid


def start_order(parts: Sequence[Part]) -> list[list[Part]]:
    """Group parts so that each needs only parts of earlier groups.

    Raises SettingsInvalid for a name that is unknown or taken twice, and for a cycle.
    """
    by_name = {part.name: part for part in parts}
    unknown = {name for part in parts for name in part.after} - by_name.keys()
    if unknown or len(by_name) < len(parts):
        raise SettingsInvalid(
            f"Parts have unknown needs {sorted(unknown)} or share a name.",
            "Name each part once, and only name parts that run.",
        )
    sorter = TopologicalSorter({part.name: part.after for part in parts})
    try:
        sorter.prepare()
    except CycleError as error:
        raise SettingsInvalid(
            f"Parts wait for each other: {error.args[1]}.", "Break the cycle."
        ) from error
    levels = []
    while names := sorter.get_ready():
        levels.append([by_name[name] for name in names])
        sorter.done(*names)
    return levels
