"""Which drifts the topic holds already."""

from __future__ import annotations

from agents.monitor.drift.drifts import Drift
from agents.monitor.drift.rules import Judge
from schemas.events import DRIFT_DETECTED, Statistic


class KnownDrifts:
    """A detector that is fed again after a restart may find the same drift a window earlier or
    later: what lies within a cool-down of a known one is that one."""

    def __init__(self, cooldown_ms: int) -> None:
        self._cooldown_ms = cooldown_ms
        self._ends_ms: dict[tuple[str, str, str], int] = {}

    def note(self, statistic: Statistic, judge: Judge) -> None:
        """Takes what a monitor wrote: the drift, and what was done about it."""
        if statistic.name != DRIFT_DETECTED:
            return
        told = statistic.labels.get
        key = told("model_version", ""), told("signal", ""), told("detector", "")
        self._ends_ms[key] = max(statistic.window_end_ms, self._ends_ms.get(key, 0))
        at_ms = round(statistic.values.get("detected_ms", statistic.window_end_ms))
        for action in filter(None, told("actions", "").split(",")):
            judge.acted(told("adapter", ""), action, at_ms)

    def holds(self, drift: Drift) -> bool:
        """Whether a drift is told already; one from before the newest known one is old news."""
        key = drift.model_version, drift.signal, drift.detection.detector
        known_ms = self._ends_ms.get(key)
        return (
            known_ms is not None and drift.detection.window.end_ms <= known_ms + self._cooldown_ms
        )
