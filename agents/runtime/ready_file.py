"""How a process tells its supervisor that it works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# How often a process that works says so.
HEARTBEAT_S: Final = 5.0
_READY_FILE = "HEADWATER_READY_FILE"


def touch_ready_file() -> None:
    """Tell whoever supervises this process that it works; the file's age is its heartbeat."""
    path = os.environ.get(_READY_FILE)
    if path:
        Path(path).touch()
