"""How a stream is watched. Apart from those who watch, so that settings need no River."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

DetectorName = Literal["cusum", "page-hinkley", "adwin", "kswin"]
DETECTORS: Final[tuple[DetectorName, ...]] = get_args(DetectorName)


@dataclass(frozen=True, slots=True)
class Watch:
    """How a stream is watched: see the settings of monitor, which are the same figures."""

    threshold: float = 14.0
    reference_min: int = 1_000
    window_min: int = 20
    observations_min: int = 100
