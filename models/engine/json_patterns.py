"""Which regular expressions a JSON Schema may use: those that compile in a time known beforehand.

Bounded repeats of groups, and long ones, take xgrammar 0.2.8 minutes, or end the process.
"""

from __future__ import annotations

import re
from typing import Any, Final

# All {m,n} of a pattern together.
REPEATS_MAX: Final = 64

_CHARACTER: Final = r"[A-Za-z0-9 _:/@,;=#%&!~<>'-]|\\[dw.+*?()\[\]{}|^$/-]"
_CLASS: Final = r"\[(?:[A-Za-z0-9 _:/@.,+-]|\\[dw.-])+\]"
# Possessive, so that the check itself takes no longer than the pattern is long.
_PIECES: Final = rf"(?:(?:{_CHARACTER}|{_CLASS})(?:[*+?]|\{{\d+(?:,\d*)?\}})?)++"
# Of the whole text, without groups inside groups or repeats of groups.
_PATTERN: Final = re.compile(rf"\^(?:{_PIECES}|\((?:\?:)?{_PIECES}(?:\|{_PIECES})*\))*\$")


def pattern_fault(pattern: Any) -> str | None:
    """Why a pattern cannot be followed, or None."""
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        return "is not of the form ^…$, of plain characters, classes and simple groups"
    repeats = sum(int(count) for count in re.findall(r"[{,](\d+)(?=[,}])", pattern))
    if repeats > REPEATS_MAX:
        return f"repeats over {REPEATS_MAX} times"
    return None
