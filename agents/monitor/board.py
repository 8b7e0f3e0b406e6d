"""Gauges for Prometheus: the newest figure of each series, for as long as it is news."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from models.engine.protocol import METRICS_PREFIX

# Labels come from feedback too: whoever sends it must not make up series without end.
_SERIES_MAX: Final = 500


class Board:
    """All gauges of one process; a gauge exists from the first figure on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        # When each series' figure is from; None: it holds until there is another one.
        self._series: dict[str, dict[tuple[str, ...], tuple[int, bool]]] = {}

    def show(
        self,
        name: str,
        meaning: str,
        labels: Mapping[str, str],
        value: float,
        at_ms: int,
        *,
        lasting: bool = False,
    ) -> None:
        """A figure of time `at_ms`; an older one than what is shown changes nothing.

        `lasting` figures are shown until there is a newer one. All figures of a name have the same
        labels.
        """
        gauge = self._gauge(name, meaning, tuple(labels))
        series, key = self._series[name], tuple(labels.values())
        known = series.get(key)
        if known is not None and known[0] > at_ms:
            return
        if known is None and len(series) >= _SERIES_MAX:
            self._drop(name, min(series, key=series.__getitem__))
        series[key] = at_ms, lasting
        (gauge.labels(*key) if key else gauge).set(value)

    def forget(self, before_ms: int) -> None:
        """Shows no more what is older and does not last."""
        for name, series in self._series.items():
            old = [key for key, (ms, lasting) in series.items() if ms < before_ms and not lasting]
            for key in old:
                self._drop(name, key)

    def only(self, name: str, label: str, value: str, keep: tuple[str, ...]) -> None:
        """Drops the series of a name whose label has this value, but for one."""
        place = self._labels[name].index(label)
        for key in [k for k in self._series[name] if k[place] == value and k != keep]:
            self._drop(name, key)

    def _drop(self, name: str, key: tuple[str, ...]) -> None:
        del self._series[name][key]
        gauge = self._gauges[name]
        if key:
            gauge.remove(*key)
        else:
            # Without labels there is one series, which lives as long as its gauge.
            self.registry.unregister(gauge)
            del self._gauges[name]

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...]) -> Gauge:
        found = self._gauges.get(name)
        if found is None:
            found = Gauge(f"{METRICS_PREFIX}{name}", meaning, labels, registry=self.registry)
            self._gauges[name], self._labels[name] = found, labels
            self._series.setdefault(name, {})
        return found
