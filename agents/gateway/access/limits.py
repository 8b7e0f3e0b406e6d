"""How often a key may ask: a bucket of requests that fills evenly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from agents.gateway.errors import ApiError


@dataclass(slots=True)
class _Bucket:
    left: float
    filled_s: float


class RateLimits:
    """A minute's requests may come at once; then they come back one by one.

    Counted by this process: behind a balancer each gateway grants the whole rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, per_minute: int) -> dict[str, str]:
        """Count one request; returns the headers that tell what is left.

        Raises ApiError (429), which says when to come back.
        """
        now_s = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(per_minute, now_s))
        refilled = bucket.left + (now_s - bucket.filled_s) * per_minute / 60
        bucket.left, bucket.filled_s = min(float(per_minute), refilled), now_s
        if bucket.left < 1:
            wait_s = (1 - bucket.left) * 60 / per_minute
            raise ApiError(
                429,
                f"This key may ask {per_minute} times a minute. Try again in {wait_s:.1f} s.",
                "rate_limit_exceeded",
                headers={"Retry-After": str(math.ceil(wait_s)), **_told(per_minute, 0)},
            )
        bucket.left -= 1
        return _told(per_minute, int(bucket.left))


def _told(limit: int, left: int) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(left),
    }
