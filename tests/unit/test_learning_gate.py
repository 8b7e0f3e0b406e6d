"""A candidate goes live only if it is not worse on the gate's questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import load
from models.learning import gate as gate_module
from models.learning.batches import EncodedAnswer
from models.learning.compare import compare
from models.learning.examples import Cohort, TrainingExample
from models.learning.gate import Gate, GateQuestion, LiveVersion, read_questions
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.learning.quality import answer_losses
from models.learning.user_gradients import AdaptedModel
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import Tensors
from models.privacy.plan import make_plan
from schemas.errors import DataInvalid

SHAPE = LoraShape(rank=2, alpha=4.0)
BASE = LiveVersion("base", {}, SHAPE)
QUESTION = {"role": "user", "content": "how deep"}
ANSWERS = ("the river carries answers", "the river carries documents")


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learner]:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    loaded = load(str(folder), folder, "cpu", "float32")
    plan = make_plan("none", epsilon=1.0, delta=1e-6, rounds_max=50)
    settings = LearnerSettings(SHAPE, OptimizerSettings("adam", 0.02), cohort_size=1)
    adapter = new_adapter(loaded.model, SHAPE)
    learner = Learner(loaded, settings, open_mechanism(plan, {}), adapter)
    example = TrainingExample(
        example_id="e", user="u", messages=(QUESTION,), correction="the river carries answers"
    )
    for number in range(8):
        learner.step(Cohort(number, {"u": [example]}))
    yield learner
    learner.close()


@pytest.fixture
def gate(learner: Learner) -> Gate:
    return Gate(learner, [GateQuestion((QUESTION,), answer) for answer in ANSWERS])


def test_a_better_candidate_is_released_with_the_figures_that_say_so(
    learner: Learner, gate: Gate
) -> None:
    found = gate.judge(learner.adapter, BASE)
    assert found.released
    assert found.evaluation["gate_loss"] < found.evaluation["gate_loss_live"]
    assert found.evaluation["gate_questions"] == 2
    assert found.evaluation["gate_difference_std_error"] > 0


def test_a_worse_candidate_is_not_unless_the_tolerance_allows_it(
    learner: Learner, gate: Gate
) -> None:
    live = LiveVersion("tone-8", learner.adapter, SHAPE)
    untrained = new_adapter(learner.model.model, SHAPE)
    assert not gate.judge(untrained, live).released
    assert gate.judge(learner.adapter, live).released  # as good as itself
    questions = [GateQuestion((QUESTION,), "the river carries answers")]
    assert Gate(learner, questions, tolerance=100.0).judge(untrained, live).released


def test_a_candidate_that_went_live_is_not_asked_again(
    learner: Learner, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = {name: tensor.clone() for name, tensor in learner.adapter.items()}
    untrained = new_adapter(learner.model.model, SHAPE)
    asked = []

    def counting(
        model: AdaptedModel, adapter: Tensors, answers: list[EncodedAnswer]
    ) -> list[float]:
        asked.append(adapter)
        return answer_losses(model, adapter, answers)

    monkeypatch.setattr(gate_module, "answer_losses", counting)
    gate.judge(candidate, BASE)
    assert len(asked) == 2
    went_live = LiveVersion("tone-8", {n: t.clone() for n, t in candidate.items()}, SHAPE)
    # The learner may go on in what it handed over.
    for tensor in candidate.values():
        tensor.zero_()
    known = gate.judge(untrained, went_live)
    assert len(asked) == 3
    fresh = Gate(learner, [GateQuestion((QUESTION,), a) for a in ANSWERS]).judge(
        untrained, went_live
    )
    assert fresh == known
    # Another one by the same learner is.
    gate.judge(candidate, LiveVersion("other-1", learner.adapter, SHAPE))
    assert len(asked) == 7


def test_what_is_live_may_have_another_shape(learner: Learner, gate: Gate) -> None:
    wide = LoraShape(rank=4, alpha=8.0, targets=("q_proj", "o_proj"))
    live = LiveVersion("edge-1", new_adapter(learner.model.model, wide), wide)
    # Its B is zero: it answers as the base does.
    as_base = gate.judge(learner.adapter, live).evaluation["gate_loss_live"]
    assert as_base == gate.judge(learner.adapter, BASE).evaluation["gate_loss_live"]


def test_questions_are_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gate.jsonl"
    line = json.dumps({"messages": [QUESTION], "answer": "nine metres"})
    path.write_text(f"{line}\n{line}\n")
    assert [question.answer for question in read_questions(path)] == ["nine metres"] * 2
    path.write_text(f"{line}\n{{}}\n")
    with pytest.raises(DataInvalid, match="Line 2"):
        read_questions(path)
    path.write_text("")
    with pytest.raises(DataInvalid, match="no question"):
        read_questions(path)
    with pytest.raises(DataInvalid, match="cannot be read"):
        read_questions(tmp_path / "none")


def test_two_versions_are_compared_module_by_module(learner: Learner) -> None:
    names = [name for name in learner.adapter if "lora_A" in name]
    distances = compare(({}, SHAPE), (learner.adapter, SHAPE))
    assert len(distances) == len(names)
    a, b = learner.adapter[names[0]], learner.adapter[names[0].replace("lora_A", "lora_B")]
    expected = float(torch.linalg.norm(2.0 * b @ a))
    found = {distance.module: distance for distance in distances}
    module = names[0].removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    assert found[module].first == 0.0
    assert found[module].second == pytest.approx(expected, rel=1e-5)
    assert found[module].difference == found[module].second
    again = compare((learner.adapter, SHAPE), (learner.adapter, SHAPE))
    assert all(distance.difference == 0.0 for distance in again)
