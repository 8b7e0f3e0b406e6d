"""Log files of parts, limited in size while the parts go on writing to them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

LOG_BYTES_MAX = 8 * 1024 * 1024
TAIL_BYTES_MAX = 64 * 1024

_FRAMES = ("\tat ", "\t... ")
_ERROR = re.compile(r"\b(ERROR|CRITICAL|FATAL)\b")


def limit_size(log: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Move a log that has grown too large aside, as `<name>.1`, and empty it.

    Its writer holds it open for appending, so it is copied and cut rather than renamed: what is
    written between the two steps is lost.
    """
    if log.exists() and log.stat().st_size > bytes_max:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def last_lines(log: Path, lines_max: int = 20) -> str:
    """What a process said at its end: from its last error on, where there is one.

    What follows an error is how the process cleaned up, and may be long. Without a JVM's stack
    frames; empty when there is no log.
    """
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES_MAX))
        text = file.read().decode("utf-8", "replace")
    lines = said(text)
    errors = [number for number, line in enumerate(lines) if _ERROR.search(line)]
    first = errors[-1] if errors else len(lines) - lines_max
    return "\n".join(lines[max(first, 0) :][:lines_max])


def said(text: str) -> list[str]:
    """The lines of a log without a JVM's stack frames."""
    return [line for line in text.strip().splitlines() if not line.startswith(_FRAMES)]
