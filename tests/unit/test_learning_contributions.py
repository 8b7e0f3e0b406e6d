"""Contributions computed while a cohort fills give the step that the whole cohort gives."""

from __future__ import annotations

import msgspec
import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import Loaded, load
from models.learning.examples import Cohort, TrainingExample
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import shapes_of
from models.privacy.plan import make_plan
from models.privacy.randomness import NoiseKey

SHAPE = LoraShape(rank=2, alpha=4.0)
PLAN = make_plan("correlated", epsilon=8.0, delta=1e-6, rounds_max=4)
KEY = NoiseKey(bytes(range(32)))
COHORT = Cohort(
    0,
    {
        f"u{user}": [
            TrainingExample(
                example_id=f"{user}-{number}",
                user=f"u{user}",
                messages=({"role": "user", "content": f"question {user}"},),
                completion="the sea",
                correction=f"the river carries answer {number}" if number else None,
                rating=-0.5,
            )
            for number in range(1 + user % 3)
        ]
        for user in range(5)
    },
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


def a_learner(loaded: Loaded) -> Learner:
    adapter = new_adapter(loaded.model, SHAPE)
    shapes = shapes_of(adapter)
    settings = LearnerSettings(SHAPE, OptimizerSettings("sgd", 0.1), len(COHORT.users))
    return Learner(loaded, settings, open_mechanism(PLAN, shapes, KEY), adapter)


def test_a_step_from_contributions_is_the_step_of_the_whole_cohort(loaded: Loaded) -> None:
    together, apart = a_learner(loaded), a_learner(loaded)
    try:
        # Out of order, as users come back.
        parts = {user: apart.contribution(COHORT.examples[user]) for user in reversed(COHORT.users)}
        one = together.step(COHORT)
        other = apart.step(COHORT, [parts[user] for user in COHORT.users])
        for name, total in one.total.items():
            torch.testing.assert_close(other.total[name], total, atol=1e-5, rtol=0)
        for name, tensor in together.adapter.items():
            torch.testing.assert_close(apart.adapter[name], tensor, atol=1e-5, rtol=0)
        assert other.norms.tolist() == pytest.approx(one.norms.tolist(), abs=1e-4)
        assert list(map(len, other.losses)) == list(map(len, one.losses))
    finally:
        apart.close()
        together.close()


def test_an_example_counts_by_its_weight(loaded: Loaded) -> None:
    learner = a_learner(loaded)
    example = COHORT.examples["u0"][0]
    try:
        whole = learner.contribution([example])
        half = learner.contribution([msgspec.structs.replace(example, weight=0.5)])
        # Before they are cut.
        assert half.norm == pytest.approx(0.5 * whole.norm, rel=1e-3)
    finally:
        learner.close()
