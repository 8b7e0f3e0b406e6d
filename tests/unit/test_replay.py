"""Rounds done again from their records: the same weights, also where others went live meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import Loaded, load
from models.learning.adapter_files import read_adapter
from models.learning.examples import Cohort, TrainingExample
from models.learning.learner import Learner, LearnerSettings
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import OptimizerSettings
from models.learning.replay import Adapter, replay
from models.learning.rounds import Judgement, Rounds
from models.privacy.ledger import Opening, Round
from models.privacy.ledger_store import LedgerStore
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import Tensors, shapes_of
from models.privacy.plan import make_plan
from models.privacy.randomness import NoiseKey
from schemas.errors import DataInvalid

KEY = NoiseKey(bytes(range(32)))
PLAN = make_plan("correlated", epsilon=8.0, delta=1e-6, rounds_max=4)
SETTINGS = LearnerSettings(LoraShape(2, 4.0), OptimizerSettings("sgd", 0.1), cohort_size=2)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


@pytest.fixture
def learner(loaded: Loaded) -> Iterator[Learner]:
    with closing(new_learner(loaded)) as found:
        yield found


def new_learner(loaded: Loaded) -> Learner:
    adapter = new_adapter(loaded.model, SETTINGS.shape)
    shapes = shapes_of(adapter)
    return Learner(loaded, SETTINGS, open_mechanism(PLAN, shapes, KEY), adapter)


def a_cohort(number: int) -> Cohort:
    """Two users, of whom one gives two examples."""

    def example(place: int) -> TrainingExample:
        return TrainingExample(
            example_id=f"{number}.{place}",
            user="",
            messages=({"role": "user", "content": f"question {number}"},),
            correction=f"the river carries answer {place}",
        )

    return Cohort(number, {f"a{number}": [example(0), example(1)], f"b{number}": [example(2)]})


def federated(loaded: Loaded) -> Tensors:
    """A version that devices put live."""
    return {n: t + 0.01 for n, t in new_adapter(loaded.model, SETTINGS.shape).items()}


def learned(loaded: Loaded, folder: Path) -> list[Round]:
    """Four rounds: the second is refused, and the third goes on from what devices taught."""
    opening = Opening(
        adapter="tone",
        plan=PLAN,
        key_commitment=KEY.commitment,
        artifact_sha256="0" * 64,
        cohort_size=2,
    )
    with closing(LedgerStore(folder / "ledger.db")) as store, closing(new_learner(loaded)) as own:
        rounds = Rounds(store, opening, own, folder / "versions", "tiny")
        for number in range(4):
            parent = "tone.federated-1" if number == 2 else None
            if parent is not None:
                own.adopt(federated(loaded))
            cohort = a_cohort(number)
            parts = [own.contribution(found) for found in cohort.examples.values()]
            given = Judgement(released=number != 1, evaluation={})
            rounds.finish(cohort, {}, lambda _, given=given: given, parts, parent)
        return store.rounds("tone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learned")


@pytest.fixture(scope="module")
def rounds(loaded: Loaded, folder: Path) -> list[Round]:
    return learned(loaded, folder)


def test_rounds_come_out_the_same_bit_by_bit(
    loaded: Loaded, learner: Learner, folder: Path, rounds: list[Round]
) -> None:
    asked: list[str] = []

    def version(name: str) -> Adapter:
        asked.append(name)
        return federated(loaded), SETTINGS.shape

    done: list[tuple[int, int]] = []
    replay(learner, rounds, [a_cohort(n) for n in range(4)], version, lambda *n: done.append(n))
    assert asked == ["tone.federated-1"]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # The weights themselves, and not only what was said of them.
    (written,) = (folder / "versions").glob("tone-4-*")
    weights, _ = read_adapter(written)
    assert all(torch.equal(weights[name], t) for name, t in learner.adapter.items())


def test_another_live_version_is_found_out(
    loaded: Loaded, learner: Learner, rounds: list[Round]
) -> None:
    base = new_adapter(loaded.model, SETTINGS.shape)
    with pytest.raises(DataInvalid, match="Round 2 was computed from other input"):
        replay(learner, rounds, [a_cohort(n) for n in range(4)], lambda _: (base, SETTINGS.shape))


def test_other_arithmetic_is_told_from_other_input(
    loaded: Loaded, learner: Learner, rounds: list[Round]
) -> None:
    other = msgspec.structs.replace(rounds[0], artifact_sha256="f" * 64)
    with pytest.raises(DataInvalid, match="Round 0 has the same input"):
        replay(learner, [other], [a_cohort(0)], lambda _: (federated(loaded), SETTINGS.shape))
