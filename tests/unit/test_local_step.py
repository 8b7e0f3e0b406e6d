"""A device's training on its own examples."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import Loaded, load
from models.federation.deltas import norm_of, unpack
from models.federation.layout import Flat, flatten, layout_digest, unflatten
from models.federation.local_step import local_delta
from models.federation.work import LocalWork
from models.learning.batches import encode_answer
from models.learning.examples import TrainingExample
from models.learning.learner import end_token_of
from models.learning.lora import LoraShape, new_adapter
from models.learning.quality import answer_losses
from models.learning.user_gradients import AdaptedModel
from schemas.errors import DataInvalid

SHAPE = LoraShape(rank=2, alpha=4.0)
EXAMPLES = [
    TrainingExample(
        example_id=f"e{number}",
        user="device",
        messages=({"role": "user", "content": f"How deep is river {number}?"},),
        correction="Nine metres.",
    )
    for number in range(6)
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


def start(loaded: Loaded) -> tuple[dict[str, Flat], LocalWork]:
    arrays = {name: t.numpy() for name, t in new_adapter(loaded.model, SHAPE).items()}
    work = LocalWork(
        round_id="r",
        layout=layout_digest(arrays),
        rank=SHAPE.rank,
        alpha=SHAPE.alpha,
        targets=SHAPE.targets,
        norm_max=1e3,
        batch_rows=2,
        epochs=3,
        learning_rate=1e-2,
    )
    return arrays, work


def delta_of(loaded: Loaded, examples: list[TrainingExample], **changed: Any) -> Flat:
    arrays, work = start(loaded)
    work = msgspec.structs.replace(work, **changed)
    flat = flatten(arrays)
    return unpack(local_delta(loaded, work, flat, examples), flat.size)


def test_training_brings_the_examples_nearer(loaded: Loaded) -> None:
    arrays, _ = start(loaded)
    answers = [
        encode_answer(loaded.tokenizer, end_token_of(loaded), e.messages, e.correction or "", 64)
        for e in EXAMPLES
    ]
    moved = unflatten(flatten(arrays) + delta_of(loaded, EXAMPLES), arrays)
    model = AdaptedModel(loaded.model, SHAPE)
    try:
        before, after = (
            np.mean(answer_losses(model, {n: torch.tensor(a) for n, a in one.items()}, answers))
            for one in (arrays, moved)
        )
    finally:
        model.close()
    assert after < before - 0.1


def test_the_same_work_gives_the_same_bytes_and_leaves_the_model_as_it_was(loaded: Loaded) -> None:
    assert np.array_equal(delta_of(loaded, EXAMPLES), delta_of(loaded, EXAMPLES[::-1]))


def test_the_norm_is_kept_and_fedprox_pulls_back(loaded: Loaded) -> None:
    free = norm_of(delta_of(loaded, EXAMPLES, optimizer="sgd"))
    assert norm_of(delta_of(loaded, EXAMPLES, optimizer="sgd", proximal=10.0)) < 0.9 * free
    assert norm_of(delta_of(loaded, EXAMPLES, norm_max=0.01)) == pytest.approx(0.01, rel=1e-4)


def test_noise_is_on_what_leaves_in_norms_of_what_it_was_cut_to(loaded: Loaded) -> None:
    cut = delta_of(loaded, EXAMPLES, norm_max=0.1)
    noise = delta_of(loaded, EXAMPLES, norm_max=0.1, noise_multiplier=2.0) - cut
    assert noise.std() == pytest.approx(0.2, rel=0.1)


def test_at_most_so_many_examples_are_used(loaded: Loaded) -> None:
    assert norm_of(delta_of(loaded, EXAMPLES, examples_max=1)) > 0.0
    all_used = delta_of(loaded, EXAMPLES)
    assert not np.array_equal(delta_of(loaded, EXAMPLES, examples_max=1), all_used)


def test_another_rank_or_no_examples_are_refused_clearly(loaded: Loaded) -> None:
    with pytest.raises(DataInvalid, match="not one of rank 4 for this device's model"):
        delta_of(loaded, EXAMPLES, rank=4)
    with pytest.raises(DataInvalid, match="no examples to learn from"):
        delta_of(loaded, [])
