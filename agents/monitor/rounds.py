"""Federated rounds as figures: what has become of those that were asked for."""

from __future__ import annotations

from collections import Counter
from typing import Final

from agents.monitor.board import Board
from schemas.events import FederatedRound

_STATES: Final = ("asked", "started", "finished", "failed")
_ROUNDS_MAX: Final = 10_000


class FederatedFigures:
    """The newest state of each round."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._states: dict[str, tuple[str, str]] = {}

    def take(self, event: FederatedRound) -> None:
        """The topic's next event."""
        self._states[event.round_id] = event.adapter, event.status
        if len(self._states) > _ROUNDS_MAX:
            del self._states[next(iter(self._states))]
        counts = Counter(self._states.values())
        for state in _STATES:
            self._show(
                "federated_rounds",
                "Federated rounds by what has become of them.",
                event,
                counts[event.adapter, state],
                status=state,
            )
        ended = {
            "federated_round_seconds": ("Time of the last round that ended.", event.duration_s),
            "federated_round_clients": ("Devices that it counts.", event.clients),
            "federated_round_bytes": ("What they sent.", event.received_bytes),
        }
        if event.status in ("finished", "failed"):
            for name, (meaning, value) in ended.items():
                if value is not None:
                    self._show(name, meaning, event, value)

    def _show(
        self, name: str, meaning: str, event: FederatedRound, value: float, **labels: str
    ) -> None:
        labels = {"adapter": event.adapter, **labels}
        self._board.show(name, meaning, labels, value, event.at_ms, lasting=True)
