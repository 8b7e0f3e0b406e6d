"""What the windows must say, in plain Python: slow, and written without a look at the SQL's ways.

A statistic is keyed by its name, labels and window; its values compare within 1e-9.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from window_events import Made

from streams.windows.settings import AnalyticsSettings

Key = tuple[str, frozenset[tuple[str, str]], int, int]
Values = dict[str, float]
Statistics = dict[Key, Values]
Facts = dict[tuple[int, str], list[Any]]


@dataclass(frozen=True)
class Exchange:
    """Feedback with the answer that it met within the interval, if any."""

    at_ms: int
    feedback: dict[str, Any]
    answer: dict[str, Any] | None


def expected(
    on_time: Sequence[Made], settings: AnalyticsSettings, late: Sequence[Made] = ()
) -> Statistics:
    """All statistics of the records; `late` is feedback that came when its window was closed."""
    answers = [record for record in on_time if record.topic == "generations"]
    exchanges = list(_exchanges(on_time, answers, settings))
    met = [exchange for exchange in exchanges if exchange.answer is not None]
    size_ms = settings.window_s * 1_000
    return {
        **_quality(answers, met, size_ms),
        **_feedback(exchanges, size_ms),
        **dict(_late(record) for record in _once(late)),
        **_drift(answers, met, settings),
        **_conversations(answers, met, settings),
        **_freshness(on_time, size_ms),
        **_privacy(on_time, size_ms),
        **_label_groups(met, size_ms),
    }


def percentile(values: Iterable[float], share: float) -> float:
    """By linear interpolation, of values rounded as the SQL does, to within 1 %."""
    ordered = sorted(_rounded(value) for value in values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def _rounded(value: float) -> float:
    return math.exp(math.floor(math.log(max(value, 1)) / 0.02 + 0.5) * 0.02)


def _key(name: str, labels: dict[str, str], start_ms: int, end_ms: int) -> Key:
    return name, frozenset(labels.items()), start_ms, end_ms


def _known(values: dict[str, float | None]) -> Values:
    return {name: value for name, value in values.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _window(at_ms: int, size_ms: int) -> int:
    return at_ms // size_ms * size_ms


def _once(records: Iterable[Made]) -> Iterator[Made]:
    seen: set[str] = set()
    for record in records:
        assert isinstance(record.value, dict)
        if record.value["feedback_id"] not in seen:
            seen.add(record.value["feedback_id"])
            yield record


def _exchanges(
    records: Sequence[Made], answers: Sequence[Made], settings: AnalyticsSettings
) -> Iterator[Exchange]:
    known = {answer.key: answer for answer in answers}
    for record in _once(record for record in records if record.topic == "feedback"):
        answer, at_ms = known.get(record.key), record.at_ms or 0
        waited_ms = None if answer is None else at_ms - (answer.at_ms or 0)
        met = waited_ms is not None and 0 <= waited_ms <= settings.join_s * 1_000
        yield Exchange(at_ms, record.value, answer.value if met and answer else None)  # type: ignore[arg-type]


def _ratings(exchanges: Sequence[Exchange]) -> list[float]:
    return [e.feedback["rating"] for e in exchanges if e.feedback.get("rating") is not None]


def _positive(ratings: Sequence[float]) -> float | None:
    return _mean([float(rating > 0) for rating in ratings])


def _quality(answers: Sequence[Made], met: Sequence[Exchange], size_ms: int) -> Statistics:
    facts: dict[tuple[int, str], tuple[list[Any], list[Exchange]]] = defaultdict(lambda: ([], []))
    for record in answers:
        value: Any = record.value
        facts[_window(record.at_ms or 0, size_ms), value["model_version"]][0].append(value)
    for exchange in met:
        version = (exchange.answer or {})["model_version"]
        facts[_window(exchange.at_ms, size_ms), version][1].append(exchange)
    return {
        _key("quality", {"model_version": version}, start, start + size_ms): _quality_of(
            made, given, size_ms
        )
        for (start, version), (made, given) in facts.items()
    }


def _quality_of(made: list[Any], given: list[Exchange], size_ms: int) -> Values:
    ratings, tokens = _ratings(given), sum(v["usage"]["completion_tokens"] for v in made)
    values: dict[str, float | None] = {
        "generations": len(made),
        "answered": sum(v["finish_reason"] not in ("error", "cancelled") for v in made),
        "feedback": len(given),
        "feedback_rate": len(given) / len(made) if made else None,
        "reward_mean": _mean(ratings),
        "positive_share": _positive(ratings),
        "corrected": sum("correction" in e.feedback for e in given),
        "completion_tokens": tokens,
        "tokens_per_s": tokens * 1_000 / size_ms,
    }
    for name, field in (("first_token", "first_token_ms"), ("total", "finished_ms")):
        times = [v["timings"][field] - v["timings"]["prompted_ms"] for v in made]
        for share in (50, 95, 99):
            found = percentile(times, share / 100) if times else None
            values[f"{name}_p{share}_ms"] = found
    return _known(values)


def _feedback(exchanges: Sequence[Exchange], size_ms: int) -> Statistics:
    facts: dict[tuple[int, str | None], list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        version = exchange.answer["model_version"] if exchange.answer else None
        facts[_window(exchange.at_ms, size_ms), version].append(exchange)
    found = {}
    for (start, version), given in facts.items():
        reward = {"reward_mean": _mean(_ratings(given))}
        if version is None:
            key = _key("feedback_late", {"what": "unmatched"}, start, start + size_ms)
            found[key] = _known({"late": 0, "unmatched": len(given), **reward})
        else:
            key = _key("feedback_joined", {"model_version": version}, start, start + size_ms)
            found[key] = _known({"joined": len(given), **reward})
    return found


def _late(record: Made) -> tuple[Key, Values]:
    value: Any = record.value
    at_ms = record.at_ms or 0
    labels = {"prompt_id": record.key, "feedback_id": value["feedback_id"]}
    values = {"late": 1.0, "unmatched": 0.0, "reward_mean": value.get("rating")}
    return _key("feedback_late", labels, at_ms, at_ms), _known(values)


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


def _drift(
    answers: Sequence[Made], met: Sequence[Exchange], settings: AnalyticsSettings
) -> Statistics:
    size_ms = settings.window_s * 1_000
    recent_ms, long_ms = settings.drift_windows * size_ms, settings.reference_windows * size_ms
    by_signal: dict[tuple[str, str], list[tuple[int, int, float, float]]] = defaultdict(list)
    for at_ms, version, signal, *fact in _drift_facts(answers, met):
        by_signal[version, signal].append((_window(at_ms, size_ms), *fact))  # type: ignore[arg-type]
    found = {}
    for (version, signal), facts in by_signal.items():
        first, last = min(fact[0] for fact in facts), max(fact[0] for fact in facts)
        for end in range(first + size_ms, last + recent_ms + size_ms, size_ms):
            middle = end - recent_ms
            recent = [fact[1:] for fact in facts if middle <= fact[0] < end]
            before = [fact[1:] for fact in facts if middle - long_ms <= fact[0] < middle]
            if recent and before:
                labels = {"model_version": version, "signal": signal}
                found[_key("drift", labels, middle, end)] = _drift_of(recent, before)
    return found


def _drift_of(
    recent: list[tuple[int, float, float]], before: list[tuple[int, float, float]]
) -> Values:
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
    total = 0.0
    for number in range(10):
        shares = [
            (sum(min(max(math.floor(at * 10), 0), 9) == number for _, at in facts) + 0.5)
            / (len(facts) + 5)
            for facts in (recent, before)
        ]
        total += (shares[0] - shares[1]) * math.log(shares[0] / shares[1])
    return total


def _conversations(
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
            ended[_window(session[-1][0] + gap_ms - 1, size_ms)].append(_session(session))
    return {
        _key("conversations", {}, start, start + size_ms): _conversations_of(sessions)
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
    return _known(values)


def _freshness(records: Sequence[Made], size_ms: int) -> Statistics:
    facts: Facts = defaultdict(list)
    for record in records:
        if record.topic == "analytics":
            value: Any = record.value
            what = value["name"].removesuffix("_freshness")
            fresh_ms = value["values"]["freshness_ms"]
            facts[_window(record.at_ms or 0, size_ms), what].append(fresh_ms)
    return {
        _key("freshness", {"what": what}, start, start + size_ms): {
            "count": len(times),
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
        }
        for (start, what), times in facts.items()
    }


def _privacy(records: Sequence[Made], size_ms: int) -> Statistics:
    facts: Facts = defaultdict(list)
    for record in records:
        if record.topic == "model-updates":
            value: Any = record.value
            facts[_window(record.at_ms or 0, size_ms), value["adapter"]].append(value["privacy"])
    return {
        _key("privacy_spent", {"adapter": adapter}, start, start + size_ms): {
            "epsilon": sum(spent["epsilon"] for spent in all_spent),
            "epsilon_total": max(spent["epsilon_total"] for spent in all_spent),
            "rounds": len(all_spent),
        }
        for (start, adapter), all_spent in facts.items()
    }


def _label_groups(met: Sequence[Exchange], size_ms: int) -> Statistics:
    facts: dict[tuple[int, str, str, str], list[Exchange]] = defaultdict(list)
    for exchange in met:
        for label, group in exchange.feedback.get("labels", {}).items():
            version = (exchange.answer or {})["model_version"]
            facts[_window(exchange.at_ms, size_ms), label, group, version].append(exchange)
    found = {}
    for (start, label, group, version), given in facts.items():
        labels = {"label": label, "group": group, "model_version": version}
        ratings = _ratings(given)
        found[_key("label_groups", labels, start, start + size_ms)] = _known(
            {
                "feedback": len(given),
                "reward_mean": _mean(ratings),
                "positive_share": _positive(ratings),
            }
        )
    return found
