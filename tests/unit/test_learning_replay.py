"""Corrections as a stream: users, cohorts, replay, and scores of texts."""

from __future__ import annotations

import math
import multiprocessing
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from tiny_model import build_tiny_model

from infra.evaluation.learning import Setting, replay, static_scores
from infra.evaluation.learning_runs import Stream, replays
from infra.evaluation.opacus_baseline import opacus_steps
from infra.evaluation.text_scores import text_scores
from models.engine.load import Loaded, load
from models.learning.e2e import read_corrections, read_test
from models.learning.examples import CohortAssembler, TrainingExample, assemble
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.participation import Participation
from models.privacy.plan import Plan, make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import DataInvalid, WorkerFailed


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    model = build_tiny_model(folder / "model")
    return load(str(model), model, "cpu", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    rows = [f'"name[River {i % 9}]","River {i % 9} carries water, {i}."' for i in range(60)]
    for name in ("devset.csv", "testset_w_refs.csv"):
        (folder / name).write_text("\n".join(['"mr","ref"', *rows]))
    return folder


def example(number: int, user: str) -> TrainingExample:
    messages = ({"role": "user", "content": "?"},)
    return TrainingExample(example_id=str(number), user=user, messages=messages, correction="yes")


def test_each_user_gives_as_many_corrections_as_asked_for(folder: Path) -> None:
    once = read_corrections(folder)
    assert len({e.user for e in once}) == len({e.example_id for e in once}) == 60
    assert once == read_corrections(folder)
    assert once[:10] == read_corrections(folder, limit=10)
    often = read_corrections(folder, examples_per_user_max=8)
    counts = [sum(e.user == user for e in often) for user in {e.user for e in often}]
    assert max(counts) > 1 and max(counts) <= 8
    assert len(often) == 60


def test_a_test_question_has_all_its_references(folder: Path) -> None:
    test = read_test(folder)
    assert len(test) == 9
    assert sum(len(found.references) for found in test) == 60
    with pytest.raises(DataInvalid, match="E2E"):
        read_test(folder / "missing")


def test_cohorts_are_distinct_users_in_order_of_arrival() -> None:
    plan = make_plan("gaussian", epsilon=8.0, delta=1e-6, rounds_max=9, participations_max=1)
    users = ["a", "a", "b", "a", "c", "a", "d", "b", "e", "f"]
    stream = [example(number, user) for number, user in enumerate(users)]
    cohorts = assemble(stream, CohortAssembler(3, 2, Participation(plan), 0))
    # The third of "a" is one too many; later ones come after its only round, as does the second
    # of "b".
    assert [cohort.users for cohort in cohorts] == [("a", "b", "c"), ("d", "e", "f")]
    assert cohorts[0].example_ids == ["0", "1", "2", "4"]
    assert [cohort.number for cohort in cohorts] == [0, 1]


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("mode", ["none", "gaussian", "correlated", "opacus"])
def test_a_replay_learns_and_says_what_it_spent(loaded: Loaded, folder: Path, mode: str) -> None:
    setting = Setting(
        mode,  # type: ignore[arg-type]
        OptimizerSettings("sgd", 0.05),
        epsilon=200.0,
        cohort_size=6,
        examples_per_user_max=1,
        evaluations=2,
    )
    told: list[tuple[int, int]] = []
    test = read_test(folder)
    static = static_scores(loaded, test)
    found = replay(
        loaded,
        read_corrections(folder),
        test,
        setting,
        static,
        NoiseKey(bytes(32)),
        lambda *done: told.append(done),
    )
    assert found["rounds"] == 10 and found["events"] == 60
    assert told == [(number, 10) for number in range(1, 11)]
    losses = [point["test_loss"] for point in found["test_curve"]]
    assert losses[0] == static["loss"] and losses[-1] == found["final"]["loss"] < losses[0]
    assert [point["events"] for point in found["test_curve"]] == [0, 30, 60]
    assert len(found["prequential"]) == 10
    assert ["bleu" in point for point in found["prequential"]] == [n == 5 for n in range(10)]
    if mode == "none":
        assert found["epsilon"] is None
    else:
        assert found["epsilon"] == pytest.approx(200.0, abs=1e-3) and math.isfinite(
            found["epsilon"]
        )


@pytest.fixture(scope="module")
def trackers() -> None:
    """Python's own process beside those that it spawns, which stays as long as this one."""
    resource_tracker.ensure_running()


@pytest.mark.long
@pytest.mark.usefixtures("trackers")
def test_replays_side_by_side_are_those_of_one_process(loaded: Loaded, folder: Path) -> None:
    corrections, test = read_corrections(folder), read_test(folder)
    settings = [
        Setting("none", OptimizerSettings("sgd", rate), cohort_size=6) for rate in (0.05, 0.1)
    ]
    static = static_scores(loaded, test)
    told: list[tuple[int, int]] = []
    with replays(Stream(corrections, test, str(folder / "model"), "float32"), jobs=2) as work:
        assert work.static() == static
        found = dict(work.run(settings, static, lambda *done: told.append(done), 20))
    for number, setting in enumerate(settings):
        alone = replay(loaded, corrections, test, setting, static)
        assert found[number]["final"] == alone["final"]
        assert found[number]["test_curve"] == alone["test_curve"]
    assert told[-1] == (20, 20)


@pytest.mark.long
@pytest.mark.usefixtures("trackers")
def test_a_replay_whose_process_dies_is_told_so(folder: Path) -> None:
    before = set(multiprocessing.active_children())
    model = str(build_tiny_model(folder / "model"))
    stream = Stream(read_corrections(folder), read_test(folder), model, "float32")
    setting = Setting("none", OptimizerSettings("sgd", 0.05), cohort_size=6)
    with replays(stream, jobs=1) as work:
        static = work.static()
        (worker,) = set(multiprocessing.active_children()) - before
        worker.kill()
        with pytest.raises(WorkerFailed, match="--jobs"):
            list(work.run([setting], static, lambda *_: None, 10))


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_without_noise_ours_and_opacus_learn_the_same(loaded: Loaded, folder: Path) -> None:
    plan = Plan(mechanism="gaussian", rounds_max=4, noise_multiplier=1e-12)
    optimizer = OptimizerSettings("sgd", 0.05)
    adapter = new_adapter(loaded.model, LoraShape())
    shapes = shapes_of(adapter)
    settings = LearnerSettings(LoraShape(), optimizer, 15, max_grad_norm=0.5, rows_max=4)
    learner = Learner(loaded, settings, open_mechanism(plan, shapes), adapter)
    cohorts = assemble(read_corrections(folder), CohortAssembler(15, 1, Participation(plan), 0))
    try:
        encoded = [[learner.encode(e[0]).answer for e in c.examples.values()] for c in cohorts]
        *_, (theirs, _) = opacus_steps(learner, encoded, optimizer, 0.0, 0.5)
        for cohort in cohorts:
            learner.step(cohort)
    finally:
        learner.close()
    for name, tensor in learner.adapter.items():
        assert (tensor - theirs[name]).abs().max() <= 1e-5
    assert max(float(t.abs().max()) for t in theirs.values()) > 1e-2


def test_scores_of_texts() -> None:
    references = [["The cat sat.", "A cat sat down on it."], ["Dogs bark at the night."]]
    assert text_scores(["a cat sat down on it.", "Dogs bark at the night."], references) == {
        "bleu": 100.0,
        "rouge_l": 100.0,
    }
    worse = text_scores(["a dog stood up on it.", "Cats sleep in the day."], references)
    assert worse["bleu"] < 40.0 and worse["rouge_l"] < 70.0
