"""Work that an event ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def unless_set(event: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Return when `work` has ended, or is cancelled because `event` was set first.

    Raises what `work` raises.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
