"""What the windows must say, in plain Python: slow, and written without a look at the SQL's ways.

A statistic is keyed by its name, labels and window; its values compare within 1e-9.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from window_conversations import conversations
from window_drift import drift
from window_events import Made
from window_facts import (
    Exchange,
    Facts,
    Key,
    Statistics,
    Values,
    exchanges_of,
    key_of,
    known,
    mean,
    once,
    percentile,
    positive,
    ratings_of,
    window_of,
)

from streams.windows.settings import AnalyticsSettings

__all__ = ["Key", "Statistics", "expected"]


def expected(
    on_time: Sequence[Made], settings: AnalyticsSettings, late: Sequence[Made] = ()
) -> Statistics:
    """All statistics of the records; `late` is feedback that came when its window was closed."""
    answers = [record for record in on_time if record.topic == "generations"]
    exchanges = list(exchanges_of(on_time, answers, settings))
    met = [exchange for exchange in exchanges if exchange.answer is not None]
    size_ms = settings.window_s * 1_000
    return {
        **_quality(answers, met, size_ms),
        **_feedback(exchanges, size_ms),
        **dict(_late(record) for record in once(late)),
        **drift(answers, met, settings),
        **conversations(answers, met, settings),
        **_freshness(on_time, size_ms),
        **_privacy(on_time, size_ms),
        **_label_groups(met, size_ms),
    }


def _quality(answers: Sequence[Made], met: Sequence[Exchange], size_ms: int) -> Statistics:
    facts: dict[tuple[int, str], tuple[list[Any], list[Exchange]]] = defaultdict(lambda: ([], []))
    for record in answers:
        value: Any = record.value
        facts[window_of(record.at_ms or 0, size_ms), value["model_version"]][0].append(value)
    for exchange in met:
        version = (exchange.answer or {})["model_version"]
        facts[window_of(exchange.at_ms, size_ms), version][1].append(exchange)
    return {
        key_of("quality", {"model_version": version}, start, start + size_ms): _quality_of(
            made, given, size_ms
        )
        for (start, version), (made, given) in facts.items()
    }


def _quality_of(made: list[Any], given: list[Exchange], size_ms: int) -> Values:
    ratings, tokens = ratings_of(given), sum(v["usage"]["completion_tokens"] for v in made)
    values: dict[str, float | None] = {
        "generations": len(made),
        "answered": sum(v["finish_reason"] not in ("error", "cancelled") for v in made),
        "feedback": len(given),
        "feedback_rate": len(given) / len(made) if made else None,
        "rated": len(ratings),
        "reward_mean": mean(ratings),
        "positive_share": positive(ratings),
        "corrected": sum("correction" in e.feedback for e in given),
        "completion_tokens": tokens,
        "tokens_per_s": tokens * 1_000 / size_ms,
    }
    for name, field in (("first_token", "first_token_ms"), ("total", "finished_ms")):
        times = [v["timings"][field] - v["timings"]["prompted_ms"] for v in made]
        for share in (50, 95, 99):
            found = percentile(times, share / 100) if times else None
            values[f"{name}_p{share}_ms"] = found
    return known(values)


def _feedback(exchanges: Sequence[Exchange], size_ms: int) -> Statistics:
    facts: dict[tuple[int, str | None], list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        version = exchange.answer["model_version"] if exchange.answer else None
        facts[window_of(exchange.at_ms, size_ms), version].append(exchange)
    found = {}
    for (start, version), given in facts.items():
        reward = {"reward_mean": mean(ratings_of(given))}
        if version is None:
            key = key_of("feedback_late", {"what": "unmatched"}, start, start + size_ms)
            found[key] = known({"unmatched": len(given), **reward})
        else:
            key = key_of("feedback_joined", {"model_version": version}, start, start + size_ms)
            found[key] = known({"joined": len(given), **reward})
    return found


def _late(record: Made) -> tuple[Key, Values]:
    value: Any = record.value
    at_ms = record.at_ms or 0
    labels = {"prompt_id": record.key, "feedback_id": value["feedback_id"]}
    values = {"late": 1.0, "reward_mean": value.get("rating")}
    return key_of("feedback_late", labels, at_ms, at_ms), known(values)


def _freshness(records: Sequence[Made], size_ms: int) -> Statistics:
    facts: Facts = defaultdict(list)
    for record in records:
        if record.topic == "analytics":
            value: Any = record.value
            what = value["name"].removesuffix("_freshness")
            fresh_ms = value["values"]["freshness_ms"]
            facts[window_of(record.at_ms or 0, size_ms), what].append(fresh_ms)
    return {
        key_of("freshness", {"what": what}, start, start + size_ms): {
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
            facts[window_of(record.at_ms or 0, size_ms), value["adapter"]].append(value["privacy"])
    return {
        key_of("privacy_spent", {"adapter": adapter}, start, start + size_ms): {
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
            facts[window_of(exchange.at_ms, size_ms), label, group, version].append(exchange)
    found = {}
    for (start, label, group, version), given in facts.items():
        labels = {"label": label, "group": group, "model_version": version}
        ratings = ratings_of(given)
        found[key_of("label_groups", labels, start, start + size_ms)] = known(
            {
                "feedback": len(given),
                "reward_mean": mean(ratings),
                "positive_share": positive(ratings),
            }
        )
    return found
