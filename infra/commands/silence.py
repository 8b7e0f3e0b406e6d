"""Saying why nothing comes, while a command waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from infra.commands.shell import err

_FIRST_AFTER_S: Final = 3.0
_AGAIN_AFTER_S: Final = 10.0


@asynccontextmanager
async def told_while_silent(
    waits_for: Callable[[], Awaitable[str | None]], broken: Callable[[], bool]
) -> AsyncIterator[None]:
    """Within it, standard error says what is waited for until the silence is `broken`.

    First after 3 s, and then when the reason (None: nothing to tell) has changed.
    """

    async def tell() -> None:
        told, pause_s = None, _FIRST_AFTER_S
        while True:
            await asyncio.sleep(pause_s)
            if broken():
                return
            reason = await waits_for()
            if reason not in (None, told) and not broken():
                err.print(f"waiting: {reason}", style="dim", markup=False)
            told, pause_s = reason, _AGAIN_AFTER_S

    telling = asyncio.create_task(tell(), name="headwater-silence")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
