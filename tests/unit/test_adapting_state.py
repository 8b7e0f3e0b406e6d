"""What adapts, restored: the same numbers, bit for bit, and the same choices from then on."""

from __future__ import annotations

from pathlib import Path

import pytest
from outcomes import adapting, an_outcome

from agents.adapting.knowledge import Adapting

EVENTS = 400


def learn(learners: Adapting, numbers: range) -> None:
    for number in numbers:
        learners.add(an_outcome(number), number)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, object]:
    learners = adapting(tmp_path_factory.mktemp("undisturbed"))
    learn(learners, range(EVENTS))
    found = learners.encoded(), learners.policy()
    learners.close()
    return found


@pytest.mark.parametrize("cuts", [(1,), (150,), (7, 130, 131, 260, 399)])
def test_learning_goes_on_as_if_there_had_been_no_restart(
    tmp_path: Path, undisturbed: tuple[bytes, object], cuts: tuple[int, ...]
) -> None:
    for cut in (*cuts, EVENTS):
        learners = adapting(tmp_path)
        # What was learned but not committed is read again.
        learn(learners, range(learners.next_offset, cut))
        learners.commit()
        learn(learners, range(cut, min(cut + 20, EVENTS)))
        learners.close()
    learners = adapting(tmp_path)
    assert learners.next_offset == EVENTS
    assert (learners.encoded(), learners.policy()) == undisturbed
    learners.close()


def test_an_outcome_that_comes_twice_is_learned_once(tmp_path: Path) -> None:
    learners = adapting(tmp_path)
    learn(learners, range(10))
    before = learners.encoded()
    assert learners.add(an_outcome(3), 10) is None
    learners.commit()
    assert learners.add(an_outcome(4), 11) is None
    assert learners.encoded() == before
    learners.close()


def test_a_learner_that_may_not_act_watches_and_leaves_the_policy_alone(tmp_path: Path) -> None:
    learners = adapting(tmp_path, acts=False)
    learn(learners, range(200))
    policy = learners.policy()
    assert policy is not None
    assert (policy.version, policy.learns) == (0, False)
    assert learners.reward.errors[""].events == 200
    spam = [an_outcome(900 + n, user="spammer", at_ms=1_300_000) for n in range(60)]
    verdicts = [learners.add(outcome, 200 + n) for n, outcome in enumerate(spam)]
    assert {verdict.decision for verdict in verdicts if verdict} == {"accepted"}
    assert learners.counts["quarantined"] > 0
    learners.close()


def test_quarantined_feedback_is_kept_whole_and_teaches_once_it_is_released(tmp_path: Path) -> None:
    learners = adapting(tmp_path)
    spam = [an_outcome(n, user="spammer", at_ms=1_000_000) for n in range(60)]
    last = [learners.add(outcome, n) for n, outcome in enumerate(spam)][-1]
    assert last is not None
    assert last.decision == "quarantined"
    assert last.outcome == spam[-1]
    assert "pieces of feedback a minute" in last.reasons[0]
    plays = sum(learners.bandit.plays)
    released = an_outcome(59, user="spammer", at_ms=1_000_000, released=True)
    verdict = learners.add(released, 60)
    assert verdict is not None
    assert (verdict.decision, verdict.weight) == ("released", 1.0)
    assert sum(learners.bandit.plays) == plays + 1
    assert learners.add(released, 61) is None
    learners.close()


def test_other_variants_keep_what_is_known_of_those_that_stay(tmp_path: Path) -> None:
    learners = adapting(tmp_path)
    learn(learners, range(50))
    learners.commit()
    wide = learners.bandit.sums[1].tolist()
    learners.close()
    changed = adapting(tmp_path, variants='[{"name": "cold"}, {"name": "wide", "top_k": 8}]')
    assert changed.bandit.sums[1].tolist() == wide
    assert changed.bandit.plays[0] == 0
    changed.close()
