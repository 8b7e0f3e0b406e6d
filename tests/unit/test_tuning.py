"""Successive halving on the stream: who stays, what it costs, and that nobody ever serves."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from learning_agents import QUESTIONS
from tiny_model import build_tiny_model

from agents.settings import LearnSettings
from agents.tuning.contest import Contest
from agents.tuning.rules import TuningRules, tuning_folder
from agents.tuning.stream import tune_on_file
from agents.tuning.told import settings_lines
from infra.tuning_report import tuning_reports
from models.learning.examples import TrainingExample
from models.learning.tuning import SCORE, Candidate, RungResult, candidates_of, results, schedule_of
from models.privacy.composition import composed_epsilon, epsilon_share
from models.privacy.gaussian import mu_of
from models.privacy.ledger import Round, verify
from models.privacy.ledger_store import LedgerStore
from schemas.errors import DataInvalid, LedgerBroken, SettingsInvalid

RATES = candidates_of([0.1, 0.2, 0.4, 0.8], [4], [1.0], [2])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def rounds_with(losses: list[float]) -> list[Round]:
    return [
        Round(
            number=number,
            users=(),
            epsilon=None,
            delta=1e-6,
            max_grad_norm=1.0,
            offsets={},
            context="",
            artifact_sha256="",
            model_version="",
            released=False,
            time_ms=0,
            evaluation={SCORE: loss},
        )
        for number, loss in enumerate(losses)
    ]


def test_all_candidates_see_the_same_examples_by_the_end_of_each_rung() -> None:
    candidates = candidates_of([0.1, 0.2], [4], [1.0], [4, 6])
    schedule = schedule_of(candidates, users=20)
    assert schedule.chunk == 12 and schedule.rungs == (2, 4)
    for candidate in candidates:
        for rung, users in ((0, 24), (1, 48)):
            assert len(schedule.span(rung, candidate)) * candidate.cohort_size == users
        assert schedule.rounds(candidate) * candidate.cohort_size == 72
    assert schedule.span(1, candidates[0]) == range(6, 18)


def test_the_better_half_stays_until_one_is_left() -> None:
    schedule = schedule_of(RATES, users=2)
    assert schedule.rungs == (1, 2)
    losses = {0: [4.0], 1: [2.0, 2.0, 2.0], 2: [math.nan], 3: [1.0, 3.0, 2.0]}
    rounds = {number: rounds_with(found) for number, found in losses.items()}
    assert results(RATES, schedule, rounds, last_only=False) == [
        RungResult(0, {0: 4.0, 1: 2.0, 2: pytest.approx(math.nan, nan_ok=True), 3: 1.0}, (1, 3)),
        RungResult(1, {1: 2.0, 3: 2.5}, (1,)),
    ]
    # By the last round of the rung both are equal, and the earlier one stays.
    assert results(RATES, schedule, rounds, last_only=True)[-1].kept == (1,)
    del rounds[3][2]
    assert len(results(RATES, schedule, rounds, last_only=False)) == 1


@pytest.mark.parametrize("parts", [2, 5])
def test_what_all_candidates_may_learn_of_somebody_is_what_was_promised(parts: int) -> None:
    share = epsilon_share(4.0, 1e-6, parts)
    assert composed_epsilon([mu_of(share, 1e-6)] * parts, 1e-6) == pytest.approx(4.0, abs=1e-6)
    # Far more than a share of epsilon: it is the squares that add up.
    assert share > 4.0 / parts
    rules = TuningRules("t", tuple(RATES), users=4, epsilon=4.0)
    settings = rules.settings_of(RATES[0], LearnSettings(mechanism="gaussian"))
    assert settings.participations_max == 1
    assert settings.epsilon == epsilon_share(4.0, 1e-6, len(RATES))


def test_a_choice_that_nobody_pays_for_is_refused() -> None:
    rules = TuningRules("t", tuple(RATES), users=4)
    with pytest.raises(SettingsInvalid, match="has to be paid for"):
        rules.check(LearnSettings(mechanism="gaussian"))
    rules.check(LearnSettings(mechanism="none"))
    public = TuningRules("t", tuple(RATES), users=4, public=True)
    public.check(LearnSettings(mechanism="gaussian"))
    paid = TuningRules("t", tuple(RATES), users=4, epsilon=1.0)
    with pytest.raises(SettingsInvalid, match="nothing to spend"):
        paid.check(LearnSettings(mechanism="none"))
    with pytest.raises(SettingsInvalid, match="nothing to choose"):
        TuningRules("t", (RATES[0],), users=4).check(LearnSettings(mechanism="none"))


def settings_of(folder: Path, mechanism: str) -> LearnSettings:
    gate = folder / "gate.jsonl"
    gate.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return LearnSettings(
        mechanism=mechanism,  # type: ignore[arg-type]
        folder=folder,
        gate_set=gate,
        device="cpu",
        dtype="float32",
    )


def example(number: int) -> TrainingExample:
    return TrainingExample(
        example_id=f"e{number}",
        # Each comes twice.
        user=f"u{number // 2}",
        messages=({"role": "user", "content": f"How deep is river {number % 5}?"},),
        correction="Nine metres.",
    )


def test_private_candidates_are_paid_for_and_judged_by_public_questions(
    model: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, "gaussian")
    candidates = tuple(candidates_of([0.1], [2], [0.5, 1.0], [2, 4]))
    rules = TuningRules("private", candidates, users=4, epsilon=6.0)
    with closing(Contest(settings, str(model), rules)) as contest:
        number = 0
        while not contest.done:
            contest.add(example(number), "examples/0", number + 1)
            number += 1
        assert contest.offsets == {"examples/0": number}
        # Of each user one example, of the others none.
        assert number == 2 * contest.schedule.chunks * contest.schedule.chunk - 1
        (winner,) = contest.alive
        assert settings_lines(contest)[1] == "HEADWATER_LEARN_RANK=2"
    store = LedgerStore(tuning_folder(settings, "private") / "ledger.db")
    with closing(store):
        mus = []
        for name in store.adapters():
            spent = verify(store.entries(name))
            assert max(len(rounds) for rounds in spent.user_rounds.values()) == 1
            mus.append(spent.opening.plan.mu())
            # Nothing is ever to be published.
            assert store.unpublished(name) == []
            # Only where a rung ends is anything said of it, and that by the public questions.
            judged = [r.number for r in store.rounds(name) if r.evaluation]
            spans = [contest.schedule.span(rung, candidates[int(name[-1])]) for rung in range(2)]
            assert set(judged) <= {span.stop - 1 for span in spans}
        assert composed_epsilon(mus, settings.delta) == pytest.approx(6.0, abs=1e-6)
    (report,) = tuning_reports(settings)
    assert report.epsilon_limit == pytest.approx(6.0, abs=1e-6)
    assert report.epsilon_spent is not None and report.epsilon_spent <= report.epsilon_limit
    assert report.candidates == 4 and 0 <= winner < 4


def write_public(path: Path, count: int) -> None:
    lines = [
        {"messages": list(example(n).messages), "correction": example(n).correction}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_public_file_is_judged_by_what_comes_next_and_costs_nothing(
    model: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, "none")
    # A rate of 0 learns nothing, and one of 1e9 destroys the model.
    candidates = tuple(candidates_of([1e-9, 0.01, 1e9], [2], [1.0], [4]))
    rules = TuningRules("public", candidates, users=4, public=True)
    file = tmp_path / "examples.jsonl"
    write_public(file, 11)
    told: list[int] = []
    contest = Contest(settings, str(model), rules)
    with closing(contest), pytest.raises(DataInvalid, match="ends in rung 1"):
        tune_on_file(file, contest, lambda now: told.append(len(now.alive)))
    # More examples, and it goes on where it was.
    write_public(file, 12)
    with closing(Contest(settings, str(model), rules)) as contest:
        tune_on_file(file, contest, lambda now: told.append(len(now.alive)))
        assert contest.candidates[contest.alive[0]] == Candidate(0.01, 2, 1.0, 4)
    assert told == [3, 2, 2, 1]
    # What people wrote does not stay behind.
    chunk = (tuning_folder(settings, "public") / "chunk.json").read_text()
    assert "metres" not in chunk
    assert tuning_reports(settings)[0].epsilon_spent is None
    other = msgspec.structs.replace(candidates[0], learning_rate=0.5)
    changed = TuningRules("public", (other, *candidates[1:]), users=4, public=True)
    with pytest.raises(LedgerBroken, match="began with other settings"):
        Contest(settings, str(model), changed)
