"""Callers that left before the end: their answers are cancelled, unless somebody reads on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Departures:
    """A broken stream may be resumed for a while, here or at another gateway, which says so."""

    def __init__(self, grace_s: float, cancel: Callable[[str], None]) -> None:
        self._grace_s = grace_s
        self._cancel = cancel
        self._pending: dict[str, asyncio.TimerHandle] = {}
        # While this process ends: its callers go on elsewhere.
        self.ending = False

    def left(self, prompt_id: str) -> None:
        """A stream broke."""
        if not self.ending:
            loop = asyncio.get_running_loop()
            self.resumed(prompt_id)
            self._pending[prompt_id] = loop.call_later(self._grace_s, self._give_up, prompt_id)

    def resumed(self, prompt_id: str) -> None:
        """Somebody reads on."""
        if (timer := self._pending.pop(prompt_id, None)) is not None:
            timer.cancel()

    def close(self) -> None:
        """Nobody came back in time."""
        for prompt_id in list(self._pending):
            self.resumed(prompt_id)
            self._cancel(prompt_id)

    def _give_up(self, prompt_id: str) -> None:
        self._pending.pop(prompt_id, None)
        self._cancel(prompt_id)
