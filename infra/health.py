"""A container's health check: `python -m infra.health` ends with status 0 while its agent lives.

An agent makes the file that HEADWATER_READY_FILE names once it is ready, and touches it every
5 s from then on; a worker that hangs stops doing so.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HEARTBEAT_AGE_MAX_S = 20.0


def problem_with(ready_file: Path, now_s: float) -> str | None:
    """Say what is wrong with an agent, judged by its ready file; None when nothing is.

    `now_s` is the time since the epoch.
    """
    try:
        age_s = now_s - ready_file.stat().st_mtime
    except OSError:
        return "not ready yet"
    return None if age_s <= HEARTBEAT_AGE_MAX_S else f"silent for {age_s:.0f} s"


def main() -> str | None:
    """Give the problem as `sys.exit` wants it, or None."""
    named = os.environ.get("HEADWATER_READY_FILE")
    return problem_with(Path(named), time.time()) if named else "HEADWATER_READY_FILE is not set"


if __name__ == "__main__":
    sys.exit(main())
