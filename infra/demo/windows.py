"""The part of the demonstration that shows the windows: what Flink says of what was done."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from infra.commands.shell import out
from schemas.events import FEEDBACK_JOINED, FRESHNESS, QUALITY, Statistic
from streams.client import Client

# Short, so that a demonstration sees some close.
WINDOWS_ENV: Final = {
    "HEADWATER_ANALYTICS_WINDOW_S": "10",
    "HEADWATER_ANALYTICS_LATENESS_S": "2",
    # Where all starts at once, readers fall silent for seconds: what they read then would be late.
    "HEADWATER_ANALYTICS_IDLE_S": "10",
    "HEADWATER_ANALYTICS_CHECKPOINT_S": "2",
}
_SHOWN: Final = (QUALITY, FEEDBACK_JOINED, FRESHNESS)
_WAIT_S_MAX: Final = 60.0


async def closed_windows(client: Client) -> dict[str, Any]:
    """A window of each kind that a demonstration must have; None for one that did not close."""
    found: dict[str, Statistic] = {}
    try:
        async with asyncio.timeout(_WAIT_S_MAX):
            async for statistic in client.subscribe("analytics", since="earliest"):
                if statistic.name in _SHOWN:
                    found.setdefault(statistic.name, statistic)
                if len(found) == len(_SHOWN):
                    break
    except TimeoutError:
        out.print("Not all windows closed: see the end of the windows' log.", style="yellow")
    return {name: _told(found[name]) if name in found else None for name in _SHOWN}


def _told(statistic: Statistic) -> dict[str, Any]:
    return {
        "window_start_ms": statistic.window_start_ms,
        "window_end_ms": statistic.window_end_ms,
        **statistic.labels,
        **{name: round(value, 4) for name, value in statistic.values.items()},
    }
