"""Environment variables that look like settings of ours and are none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from infra.commands.settings import setting_names

PREFIX: Final = "HEADWATER_"
# Read by the parts of the local runtime themselves, or by Compose; no settings of users.
_OTHERS: Final = frozenset({"HEADWATER_READY_FILE", "HEADWATER_IMAGE", "HEADWATER_WINDOWS_IMAGE"})


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that nothing reads, and the setting that it is most like."""

    name: str
    nearest: str | None

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} is no setting and has no effect{hint}"


def unknown_settings(environment: Iterable[str]) -> list[Unknown]:
    """The variables of these names that no part of Headwater reads, in alphabetical order.

    All parts of a river may share one environment, so the settings of all count.
    """
    known = setting_names() | _OTHERS
    strange = sorted(name for name in environment if name.upper().startswith(PREFIX))
    return [Unknown(name, _nearest(name, known)) for name in strange if name.upper() not in known]


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # What all have in common would make any two alike.
    endings = {setting.removeprefix(PREFIX): setting for setting in known}
    given = name.upper().removeprefix(PREFIX)
    near = get_close_matches(given, endings, n=1) or [
        ending for ending in endings if ending.endswith(f"_{given}")
    ]
    return endings[near[0]] if near else None
