"""How often a key may ask: a bucket of requests that fills evenly. A prompt counts as one."""

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

    def take(self, name: str, per_minute: int, count: int = 1, counted: int = 0) -> dict[str, str]:
        """Count all of them or none; returns the headers that tell what is left.

        `counted` of them were counted before. Raises ApiError (429), which says when to come back;
        a `count` over `per_minute` never fits.
        """
        now_s = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(per_minute, now_s))
        refilled = bucket.left + counted + (now_s - bucket.filled_s) * per_minute / 60
        bucket.left, bucket.filled_s = min(float(per_minute), refilled), now_s
        if bucket.left < count:
            wait_s = (count - bucket.left) * 60 / per_minute
            raise ApiError(
                429,
                f"This key may ask {per_minute} times a minute. Try again in {wait_s:.1f} s.",
                "rate_limit_exceeded",
                headers={"Retry-After": str(math.ceil(wait_s))}
                | _told(per_minute, int(bucket.left)),
            )
        bucket.left -= count
        return _told(per_minute, int(bucket.left))


def _told(limit: int, left: int) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(left),
    }
