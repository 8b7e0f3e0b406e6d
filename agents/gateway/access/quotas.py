"""How many tokens each key used today, read off `generations`: all gateways agree, also restarted.

A day is UTC's. Finished answers count, so answers under way may overdraw a quota.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from agents.gateway.errors import ApiError
from schemas.events import Usage
from schemas.topics import DAY_MS, GENERATIONS
from streams.admin import partition_count
from streams.follower import Follower
from streams.lookup import offset_at
from streams.settings import KafkaSettings

SEPARATOR: Final = "/"


class _Used(msgspec.Struct):
    """As much of a finished record as counts here."""

    usage: Usage
    user_id: str | None = None


class Quotas:
    """Tokens of today by the name of the key, which begins the `user_id` of its prompts."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._decoder = msgspec.json.Decoder(_Used)
        self._used: dict[tuple[int, str], int] = {}
        self._follower: Follower | None = None
        self._lock = asyncio.Lock()

    async def check(self, name: str, tokens_per_day: int) -> None:
        """Raises ApiError (429) for a key that used its day's tokens."""
        async with self._lock:
            if self._follower is None:
                await self._open()
        used = self._used.get((_today(), name), 0)
        if used >= tokens_per_day:
            left_s = DAY_MS // 1000 - int(time.time()) % (DAY_MS // 1000)
            raise ApiError(
                429,
                f"This key used {used:,} of its {tokens_per_day:,} tokens of today (UTC).",
                "insufficient_quota",
                headers={"Retry-After": str(left_s)},
            )

    async def close(self) -> None:
        if self._follower is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._follower.close()

    async def _open(self) -> None:
        """Read from where today begins; return once all of today so far is counted."""
        starts = await asyncio.to_thread(self._starts)
        follower = Follower(self._kafka, GENERATIONS, starts)
        await follower.open()
        try:
            async for record in follower.until_caught_up():
                self._count(record.value)
        except BaseException:
            await follower.close()
            raise
        self._follower = follower
        self._task = asyncio.create_task(self._follow(follower), name="headwater-quotas")

    def _starts(self) -> dict[int, int]:
        count, midnight_ms = partition_count(self._kafka, GENERATIONS), _today() * DAY_MS
        return {p: offset_at(self._kafka, GENERATIONS, p, midnight_ms) for p in range(count)}

    async def _follow(self, follower: Follower) -> None:
        while True:
            for record in await follower.batch():
                self._count(record.value)

    def _count(self, value: bytes | None) -> None:
        try:
            found = self._decoder.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # Others are told of it by the agents that must read it.
        name, separator, _ = (found.user_id or "").partition(SEPARATOR)
        if separator:
            today = _today()
            tokens = found.usage.prompt_tokens + found.usage.completion_tokens
            self._used = {key: count for key, count in self._used.items() if key[0] == today}
            self._used[today, name] = self._used.get((today, name), 0) + tokens


def _today() -> int:
    """Days since the epoch, in UTC."""
    return int(time.time() * 1000) // DAY_MS
