"""Which federated rounds are to be done, as the topic's records say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.events import FederatedRound

_REMEMBERED_MAX: Final = 10_000


@dataclass(slots=True)
class Asked:
    """A round that was asked for and has not ended; `attempts` is how often it was begun."""

    event: FederatedRound
    partition: int
    offset: int
    attempts: int = 0


class RoundQueue:
    """Rounds of one adapter, one after the other in the order in which they were asked for."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self._open: dict[str, Asked] = {}
        self._ended: dict[str, None] = {}

    def take(self, event: FederatedRound, partition: int, offset: int) -> None:
        """The topic's next record. A round that is asked for twice is done once."""
        if event.adapter != self._adapter:
            return
        known = self._open.get(event.round_id)
        if event.round_id in self._ended:
            return
        if event.status == "asked":
            self._open.setdefault(event.round_id, Asked(event, partition, offset))
        elif event.status == "started" and known is not None:
            known.attempts += 1
        elif event.status in ("finished", "failed"):
            self.end(event.round_id)

    def next(self) -> Asked | None:
        """The oldest round that is not ended."""
        return next(iter(self._open.values()), None)

    def end(self, round_id: str) -> None:
        """A round is done, before the topic says so."""
        self._open.pop(round_id, None)
        self._ended[round_id] = None
        if len(self._ended) > _REMEMBERED_MAX:
            del self._ended[next(iter(self._ended))]
