"""Statistics to streams under watch, one for each version and signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from models.drift.stream import Detection, Stream
from models.drift.watch import Watch
from models.drift.windows import Signal, Window
from schemas.events import DRIFT, QUALITY, Statistic

REWARD: Final = "reward"
# A tenth of the range of ratings counts; of what people ask, a quarter of how much it varies.
SIGNALS: Final = {
    REWARD: Signal(shift=0.2, sides=(-1,), bounds=(-1.0, 1.0)),
    "prompt_chars": Signal(shift=0.25, sides=(-1, 1)),
    "retrieval_score": Signal(shift=0.25, sides=(-1, 1)),
    # The index of stability of a window counts as one observation.
    "prompt_embedding": Signal(shift=2.0, sides=(1,)),
}
# Streams watched together; versions that were not seen for longest make way.
_STREAMS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Observed:
    """A window of one version's signal, and of how many observations it is."""

    model_version: str
    signal: str
    window: Window
    observations: float


@dataclass(frozen=True, slots=True)
class Drift:
    """A detection, and which stream it is of. `observations` are those since the change."""

    model_version: str
    signal: str
    detection: Detection
    observations: float

    @property
    def said(self) -> str:
        """For people, as a reason."""
        found = self.detection
        until = datetime.fromtimestamp(found.window.end_ms / 1000, UTC).isoformat("T", "seconds")
        return (
            f"{self.signal} of {self.model_version} went from {found.mean_reference:.3f} to "
            f"{found.mean:.3f} ({found.detector}, {self.observations:.0f} observations in "
            f"{found.windows} windows until {until})"
        )


class Drifts:
    """All streams. A new version is held against the windows of its parent."""

    def __init__(self, watch: Watch, parent_of: Callable[[str], str | None]) -> None:
        self._watch = watch
        self._parent_of = parent_of
        self._streams: dict[tuple[str, str], Stream] = {}

    def add(self, seen: Observed) -> list[Drift]:
        """What the detectors find at the end of a window."""
        stream = self._stream(seen.model_version, seen.signal)
        share = seen.observations / seen.window.count
        return [
            Drift(seen.model_version, seen.signal, found, found.count * share)
            for found in stream.add(seen.window)
        ]

    def evidence(self) -> Iterator[tuple[str, str, float]]:
        """Version, signal and evidence for a drift of each stream, nats."""
        for (version, signal), stream in self._streams.items():
            yield version, signal, stream.evidence

    def _stream(self, version: str, signal: str) -> Stream:
        key = version, signal
        stream = self._streams.pop(key, None)
        if stream is None:
            parent = self._streams.get((self._parent_of(version) or "", signal))
            before = list(parent.history) if parent is not None else []
            stream = Stream(SIGNALS[signal], self._watch, before)
        # The one that was seen last comes last.
        self._streams[key] = stream
        if len(self._streams) > _STREAMS_MAX:
            del self._streams[next(iter(self._streams))]
        return stream


def observed(statistic: Statistic) -> Observed | None:
    """The window in a statistic, if it is one to watch."""
    values, labels = statistic.values, statistic.labels
    version, signal = labels.get("model_version"), labels.get("signal", REWARD)
    if version is None:
        return None
    if statistic.name == QUALITY:
        # Not all feedback is a rating, where that is told apart.
        count = values.get("rated", values.get("feedback", 0.0))
        mean, signal = values.get("reward_mean"), REWARD
    elif statistic.name == DRIFT and signal in SIGNALS and signal != REWARD:
        # Reward is taken from the windows that do not overlap.
        count = values.get("count", 0.0)
        mean = values.get("psi" if signal == "prompt_embedding" else "mean")
    else:
        return None
    if mean is None or count <= 0:
        return None
    weight = 1.0 if signal == "prompt_embedding" else count
    window = Window(statistic.window_start_ms, statistic.window_end_ms, mean, weight)
    return Observed(version, signal, window, count)
