"""Whom the guard believes, and what it counts of labels."""

from __future__ import annotations

import random

import pytest

from models.judging.guard import Guard, Judged, Signal
from models.judging.labels import CLASSES_MAX, OTHER, LabelTallies
from models.judging.predictions import predicted_labels


def crowd(guard: Guard, events: int, liars: int = 0, users: int = 20) -> dict[str, list[Judged]]:
    """Users rate answers as these deserve, but for the first few, who say the opposite."""
    drawn, found = random.Random(1), {f"user-{n}": [] for n in range(users)}
    for number in range(events):
        user, answer = drawn.randrange(users), drawn.randrange(8)
        deserved = 0.8 if answer % 2 else -0.8
        reward = (-deserved if user < liars else deserved) + drawn.gauss(0.0, 0.1)
        signal = Signal(f"user-{user}", 20_000 * number, reward, 0.0, f"answer-{answer}")
        found[f"user-{user}"].append(guard.judge(signal))
    return found


def test_users_at_odds_with_all_others_end_in_quarantine_and_the_others_do_not() -> None:
    found = crowd(Guard(), 800, liars=4)
    for number in range(20):
        verdicts = found[f"user-{number}"]
        quarantined = sum(bool(verdict.reasons) for verdict in verdicts[-10:])
        assert (quarantined >= 9) if number < 4 else (quarantined == 0), number


def test_who_is_at_odds_counts_less_before_that_is_sure() -> None:
    guard = Guard()
    crowd(guard, 300)
    strange = [
        guard.judge(Signal("new", 6_000_000 + 60_000 * n, -0.8, 0.8, f"fresh-{n}"))
        for n in range(12)
    ]
    assert strange[0].weight < 1.0
    assert strange[-1].weight == 0.0
    assert "at odds" in strange[-1].reasons[-1]


def test_a_text_that_is_said_over_and_over_is_set_aside() -> None:
    guard = Guard()
    said = [
        guard.judge(Signal(f"user-{n}", 60_000 * n, None, 0.0, f"answer-{n}", "buy now"))
        for n in range(7)
    ]
    assert [bool(verdict.reasons) for verdict in said] == [False] * 5 + [True] * 2


def test_a_steady_user_is_not_too_fast_and_a_burst_is() -> None:
    guard = Guard()
    steady = [guard.judge(Signal("a", 5_000 * n, 0.5, 0.5, f"s{n}")) for n in range(100)]
    burst = [guard.judge(Signal("b", 500_000 + 10 * n, 0.5, 0.5, f"b{n}")) for n in range(40)]
    assert not any(verdict.reasons for verdict in steady)
    assert any("a minute" in reason for reason in burst[-1].reasons)


def test_a_burst_that_no_rule_forbids_is_unlike_all_other_feedback() -> None:
    """Three users say the same corrections in turn, each text less often than the rule allows."""
    guard = Guard()
    honest = [judged for verdicts in crowd(guard, 1_500).values() for judged in verdicts]
    assert not any(judged.reasons for judged in honest)
    start_ms = 20_000 * 1_500
    burst = [
        guard.judge(
            Signal(f"new-{n % 3}", start_ms + 500 * n, None, 0.0, f"fresh-{n}", f"text {n // 3}")
        )
        for n in range(24)
    ]
    assert {judged.reasons for judged in burst} == {(), ("unlike all other feedback",)}
    assert sum(bool(judged.reasons) for judged in burst) >= 12


def test_a_label_is_predicted_by_the_answer_or_by_who_sends_it() -> None:
    answer = '{"intent": "order", "urgent": true, "why": {"a": 1}}'
    truth = {"intent": "refund", "urgent": "true", "why": "x", "tone": "calm"}
    assert predicted_labels(truth, answer) == {"intent": "order", "urgent": "true"}
    given = truth | {"tone.predicted": "angry", "intent.predicted": "refund"}
    assert predicted_labels(given, "no JSON") == {"tone": "angry", "intent": "refund"}
    assert predicted_labels(truth, "[1]") == {}


def test_label_quality_is_what_counting_by_hand_gives() -> None:
    tallies = LabelTallies()
    pairs = [("refund", "refund")] * 6 + [("refund", "order")] * 2 + [("order", "order")] * 2
    for truth, predicted in pairs:
        tallies.add({"intent": truth}, {"intent": predicted}, "default-1")
    (found,) = tallies.quality()
    assert (found.label, found.model_version) == ("intent", "default-1")
    assert found.overall["accuracy"] == pytest.approx(0.8)
    assert found.by_class["refund"]["precision"] == pytest.approx(1.0)
    assert found.by_class["refund"]["recall"] == pytest.approx(0.75)
    assert found.by_class["order"]["precision"] == pytest.approx(0.5)
    assert found.overall["f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)
    assert found.confusion == {"refund": {"refund": 6, "order": 2}, "order": {"order": 2}}


def test_free_text_does_not_make_classes_without_end() -> None:
    tallies = LabelTallies()
    for number in range(50):
        tallies.add({"topic": f"topic {number}"}, {"topic": "none"}, "base")
    (found,) = tallies.quality()
    assert len(found.by_class) <= CLASSES_MAX
    assert OTHER in found.confusion
