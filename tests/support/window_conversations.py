"""The oracle of conversations: sessions, and what came of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from window_events import Made
from window_facts import Exchange, Statistics, Values, key_of, known, percentile, window_of

from streams.windows.settings import AnalyticsSettings


def conversations(
    answers: Sequence[Made], met: Sequence[Exchange], settings: AnalyticsSettings
) -> Statistics:
    by_id: dict[str, list[tuple[int, bool, float | None, Any]]] = defaultdict(list)
    for record in answers:
        value: Any = record.value
        if value["conversation_id"] is not None:
            by_id[value["conversation_id"]].append((record.at_ms or 0, True, None, value))
    for exchange in met:
        if exchange.answer is not None and exchange.answer["conversation_id"] is not None:
            rating = exchange.feedback.get("rating")
            facts = by_id[exchange.answer["conversation_id"]]
            facts.append((exchange.at_ms, False, rating, exchange.answer))
    gap_ms, size_ms = settings.session_s * 1_000, settings.window_s * 1_000
    ended: dict[int, list[tuple[int, bool, int | None]]] = defaultdict(list)
    for facts in by_id.values():
        for session in _sessions(sorted(facts, key=lambda fact: fact[0]), gap_ms):
            ended[window_of(session[-1][0] + gap_ms - 1, size_ms)].append(_session(session))
    return {
        key_of("conversations", {}, start, start + size_ms): _conversations_of(sessions)
        for start, sessions in ended.items()
    }


def _sessions(facts: list[Any], gap_ms: int) -> Iterator[list[Any]]:
    session = [facts[0]]
    for fact in facts[1:]:
        if fact[0] - session[-1][0] >= gap_ms:
            yield session
            session = []
        session.append(fact)
    yield session


def _session(session: list[Any]) -> tuple[int, bool, int | None]:
    """Its turns, whether it was abandoned, and how long a good answer took, in ms."""
    times = [fact[3]["timings"] for fact in session]
    bad = [
        fact[3]["timings"]["finished_ms"]
        for fact in session
        if (fact[2] is not None and fact[2] < 0)
        or (fact[1] and fact[3]["finish_reason"] in ("error", "cancelled"))
    ]
    good = [f[3]["timings"]["finished_ms"] for f in session if f[2] is not None and f[2] > 0]
    abandoned = bool(bad) and max(bad) >= max(time["finished_ms"] for time in times)
    took_ms = min(good) - min(time["prompted_ms"] for time in times) if good else None
    return sum(fact[1] for fact in session), abandoned, took_ms


def _conversations_of(sessions: list[tuple[int, bool, int | None]]) -> Values:
    times = [took_ms for *_, took_ms in sessions if took_ms is not None]
    values: dict[str, float | None] = {
        "conversations": len(sessions),
        "turns_mean": fmean(turns for turns, *_ in sessions),
        "abandoned_share": fmean(float(abandoned) for _, abandoned, _ in sessions),
        "good_answers": len(times),
    }
    for share in (50, 95, 99):
        values[f"good_answer_p{share}_ms"] = percentile(times, share / 100) if times else None
    return known(values)
