"""Callers that left before the end: their answers are cancelled, unless somebody reads on.

A broken stream may be resumed for a while, here or at another gateway, and again elsewhere. Whoever
resumes says so beside the answer's chunks, which every gateway reads that has a part in it; the
offset of that tells which of two came later. The last one's gateway is the one that cancels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from streams.answer import Answer


@dataclass(slots=True)
class _Reading:
    """Who reads one answer: how many here, and the offsets of the last resume here and anywhere."""

    readers: int = 0
    here: int = -1
    anywhere: int = -1
    # Once all have left. While an answer is kept its chunks are read, and so resumes are heard of.
    kept: Answer | None = None
    timer: asyncio.TimerHandle | None = None


class Departures:
    """The streams of one gateway: each `came`, and each `left` once, at its end or before."""

    def __init__(self, grace_s: float, cancel: Callable[[str], None]) -> None:
        self._grace_s = grace_s
        self._cancel = cancel
        self._readings: dict[str, _Reading] = {}
        # While this process ends: its callers go on elsewhere.
        self.ending = False

    def came(self, answer: Answer) -> None:
        """A stream begins, or goes on."""
        reading = self._readings.setdefault(answer.prompt_id, _Reading())
        reading.readers += 1
        reading.here = max(reading.here, answer.resumed_at)
        if reading.timer is not None:
            reading.timer.cancel()
            reading.timer = reading.kept = None

    def left(self, answer: Answer) -> None:
        """A stream ended or broke."""
        reading = self._readings[answer.prompt_id]
        reading.readers -= 1
        if reading.readers > 0:
            return
        if self.ending or answer.generation is not None:
            del self._readings[answer.prompt_id]
            return
        loop = asyncio.get_running_loop()
        reading.kept = answer
        reading.timer = loop.call_later(self._grace_s, self._give_up, answer.prompt_id)

    def resumed(self, prompt_id: str, offset: int) -> None:
        """Somebody reads on, here or elsewhere, and said so at this offset."""
        if (reading := self._readings.get(prompt_id)) is not None:
            reading.anywhere = max(reading.anywhere, offset)

    def close(self) -> None:
        """Nobody came back in time."""
        for prompt_id, reading in list(self._readings.items()):
            if reading.timer is not None:
                reading.timer.cancel()
                self._give_up(prompt_id)

    def _give_up(self, prompt_id: str) -> None:
        reading = self._readings.pop(prompt_id)
        if reading.here >= reading.anywhere:
            self._cancel(prompt_id)
