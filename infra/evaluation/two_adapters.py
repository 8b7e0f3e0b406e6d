"""An adapter of feedback and one of documents: each alone, both on a row, or merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from models.engine.load import Loaded
from models.learning.batches import EncodedAnswer
from models.learning.compose import composed
from models.learning.e2e import read_corrections, read_test
from models.learning.examples import CohortAssembler, TrainingExample, assemble
from models.learning.learner import Learner, LearnerSettings, encode_example, end_token_of
from models.learning.lora import LoraShape, names_of, new_adapter, target_modules
from models.learning.optimizers import WITHOUT_NOISE
from models.learning.user_gradients import AdaptedModel
from models.privacy.mechanism import open_mechanism
from models.privacy.noise import Tensors
from models.privacy.participation import Participation
from models.privacy.plan import make_plan
from models.studying.perplexity import token_loss

Adapter = tuple[Tensors, LoraShape]
_COHORT, _TEST, _TOKENS_MAX = 16, 32, 256


@dataclass(frozen=True, slots=True)
class Arm:
    """Losses in nats by token: of articles still to come, and of test answers of the feedback."""

    name: str
    documents: float
    feedback: float


def compare_arms(
    loaded: Loaded,
    documents: Adapter,
    feedback: Adapter,
    articles: Sequence[EncodedAnswer],
    answers: Sequence[EncodedAnswer],
) -> Iterator[Arm]:
    """The base, each alone, both on a row, documents merged below feedback, and both merged.

    To merge is to add to the base's weights and round to their format; they are put back.
    """
    nothing: Adapter = ({}, documents[1])
    both = composed(feedback, documents)
    arms: list[tuple[str, Adapter, Adapter]] = [
        ("base", nothing, nothing),
        ("documents alone", nothing, documents),
        ("feedback alone", nothing, feedback),
        ("both on a row", nothing, both),
        ("documents merged, feedback on the row", documents, feedback),
        ("both merged", both, nothing),
    ]
    for name, merged, active in arms:
        with _merged(loaded.model, merged):
            model = AdaptedModel(loaded.model, active[1])
            try:
                losses = [round(token_loss(model, active[0], r), 4) for r in (articles, answers)]
            finally:
                model.close()
        yield Arm(name, *losses)


def learned_from_feedback(loaded: Loaded, folder: Path, corrections: int) -> Adapter:
    """What learn makes of so many corrections of E2E, one cohort after the other, not private."""
    shape = LoraShape()
    found = read_corrections(folder, corrections)
    plan = make_plan("none", epsilon=1.0, delta=1e-6, rounds_max=max(1, corrections // _COHORT))
    learner = Learner(
        loaded,
        LearnerSettings(shape, WITHOUT_NOISE, _COHORT, tokens_max=_TOKENS_MAX),
        open_mechanism(plan, {}),
        new_adapter(loaded.model, shape),
    )
    try:
        for cohort in assemble(found, CohortAssembler(_COHORT, 1, Participation(plan), 0)):
            learner.step(cohort)
        return learner.adapter, shape
    finally:
        learner.close()


def held_out_answers(loaded: Loaded, folder: Path) -> list[EncodedAnswer]:
    """Questions of E2E that nobody learned from, with their first reference."""
    end = end_token_of(loaded)
    asked = [
        TrainingExample(
            example_id="",
            user="",
            messages=({"role": "user", "content": found.question},),
            correction=found.references[0],
        )
        for found in read_test(folder, _TEST)
    ]
    return [encode_example(loaded.tokenizer, end, one, _TOKENS_MAX).answer for one in asked]


@contextmanager
def _merged(model: PreTrainedModel, adapter: Adapter) -> Iterator[None]:
    """Adds an adapter to the weights, in float32, and rounds."""
    tensors, shape = adapter
    kept: dict[str, torch.Tensor] = {}
    for name, module in target_modules(model, shape).items() if tensors else ():
        a, b = (tensors[n].float() for n in names_of(name))
        kept[name] = module.weight.data
        module.weight.data = (kept[name].float() + shape.scaling * (b @ a)).to(kept[name].dtype)
    try:
        yield
    finally:
        for name, weight in kept.items():
            target_modules(model, shape)[name].weight.data = weight
