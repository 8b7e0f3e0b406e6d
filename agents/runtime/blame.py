"""Whose fault a failure is, and how one bad record is found in a batch (law 2).

A failure that is the broker's, the index's or the model's ends the worker: its successor does the
same records again. Any other is the record's own, and would end every successor as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from schemas.errors import (
    BrokerUnreachable,
    DeliveryFailed,
    Fenced,
    GenerationFailed,
    IndexUnavailable,
    ModelUnavailable,
    NotAuthorised,
    SettingsInvalid,
    TopicMissing,
)

T = TypeVar("T")
R = TypeVar("R")

_SURROUNDINGS: Final = (
    BrokerUnreachable,
    DeliveryFailed,
    Fenced,
    GenerationFailed,
    IndexUnavailable,
    MemoryError,
    ModelUnavailable,
    NotAuthorised,
    SettingsInvalid,
    TopicMissing,
)

log = logging.getLogger("headwater.blame")


def is_the_records_fault(error: Exception) -> bool:
    """Whether the next worker would fail at this record in the same way."""
    return not isinstance(error, _SURROUNDINGS)


async def together_or_alone(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    refuse: Callable[[T, Exception], Awaitable[None]],
) -> list[tuple[T, R]]:
    """Each item with its result, in order, less those that were refused.

    `work` takes all items together. Where that fails it takes each alone, and `refuse` those that
    it fails at. So `work` must allow to be called again. Raises what is no record's fault.
    """
    if not items:
        return []
    try:
        return list(zip(items, await work(items), strict=True))
    except Exception as error:
        if not is_the_records_fault(error):
            raise
        if len(items) == 1:
            await refuse(items[0], error)
            return []
        log.warning("%d records failed together, so each is tried alone: %s", len(items), error)
    return [pair for item in items for pair in await together_or_alone([item], work, refuse)]
