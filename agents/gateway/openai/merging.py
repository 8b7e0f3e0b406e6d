"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

# Items that wait for a slow reader.
_WAITING_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class _End:
    """A stream gives no more; `error` says why, where it broke."""

    error: Exception | None = None


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
    """What each stream gives, with its number, as it comes; raises the first error of any."""
    queue: asyncio.Queue[tuple[int, T] | _End] = asyncio.Queue(_WAITING_MAX)

    async def follow(number: int, stream: AsyncIterator[T]) -> None:
        end = _End()
        try:
            async for item in stream:
                await queue.put((number, item))
        except Exception as error:
            end = _End(error)
        await queue.put(end)

    tasks = [asyncio.create_task(follow(*numbered)) for numbered in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                running -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
