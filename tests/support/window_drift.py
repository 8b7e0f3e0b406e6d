"""The oracle of drift: recent windows held against those before them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from window_events import Made
from window_facts import Exchange, Statistics, Values, key_of, window_of

from streams.windows.settings import AnalyticsSettings

# (component, value, where it lies between 0 and 1), by the start of their window.
Observed = tuple[int, float, float]
Windows = dict[int, list[Observed]]


def _drift_facts(
    answers: Sequence[Made], met: Sequence[Exchange]
) -> Iterator[tuple[int, str, str, int, float, float]]:
    """(time, version, signal, component, value, where it lies between 0 and 1)."""
    for exchange in met:
        rating = exchange.feedback.get("rating")
        if rating is not None and exchange.answer is not None:
            version = exchange.answer["model_version"]
            yield exchange.at_ms, version, "reward", 0, rating, (rating + 1) / 2
    for record in answers:
        value: Any = record.value
        at_ms, version = record.at_ms or 0, value["model_version"]
        chars = value["prompt_chars"]
        yield at_ms, version, "prompt_chars", 0, chars, math.log(1 + chars) / math.log(1e6)
        if value["passages"]:
            cosine = value["passages"][0]["cosine"]
            yield at_ms, version, "retrieval_score", 0, cosine, max(cosine, 0.0)
        for component, number in enumerate(value["prompt_sketch"]):
            yield at_ms, version, "prompt_embedding", component, number, number + 0.5


def drift(
    answers: Sequence[Made], met: Sequence[Exchange], settings: AnalyticsSettings
) -> Statistics:
    size_ms = settings.window_s * 1_000
    recent_ms, long_ms = settings.drift_windows * size_ms, settings.reference_windows * size_ms
    by_signal: dict[tuple[str, str], Windows] = defaultdict(lambda: defaultdict(list))
    for at_ms, version, signal, component, value, share in _drift_facts(answers, met):
        by_signal[version, signal][window_of(at_ms, size_ms)].append((component, value, share))
    found = {}
    for (version, signal), windows in by_signal.items():
        for end in range(min(windows) + size_ms, max(windows) + recent_ms + size_ms, size_ms):
            middle = end - recent_ms
            recent = _between(windows, middle, end, size_ms)
            before = _between(windows, middle - long_ms, middle, size_ms)
            if recent and before:
                labels = {"model_version": version, "signal": signal}
                found[key_of("drift", labels, middle, end)] = _drift_of(recent, before)
    return found


def _between(windows: Windows, start: int, end: int, size_ms: int) -> list[Observed]:
    return [fact for at in range(start, end, size_ms) for fact in windows.get(at, ())]


def _drift_of(recent: list[Observed], before: list[Observed]) -> Values:
    components = sorted({fact[0] for fact in recent})
    ours = [[fact[1:] for fact in recent if fact[0] == c] for c in components]
    theirs = [[fact[1:] for fact in before if fact[0] == c] for c in components]
    means = [fmean(v for v, _ in facts) for facts in ours]
    earlier = [fmean(v for v, _ in facts) for facts in theirs]
    shifts = [a - b for a, b in zip(means, earlier, strict=True)]
    alone = len(components) == 1
    return {
        "psi": fmean(_psi(a, b) for a, b in zip(ours, theirs, strict=True)),
        "mean": means[0] if alone else math.hypot(*means),
        "mean_reference": earlier[0] if alone else math.hypot(*earlier),
        "shift": shifts[0] if alone else math.hypot(*shifts),
        "count": max(map(len, ours)),
        "count_reference": max(map(len, theirs)),
    }


def _psi(recent: list[Any], before: list[Any]) -> float:
    ours, theirs = (Counter(_bin(at) for _, at in facts) for facts in (recent, before))
    total = 0.0
    for number in range(10):
        p = (ours[number] + 0.5) / (len(recent) + 5)
        q = (theirs[number] + 0.5) / (len(before) + 5)
        total += (p - q) * math.log(p / q)
    return total


def _bin(share: float) -> int:
    return min(max(math.floor(share * 10), 0), 9)
