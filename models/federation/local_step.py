"""A device's part of a round: the learner's gradients and optimizer, on the device's examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from models.engine.load import Loaded
from models.federation.deltas import clip, noised, pack
from models.federation.layout import Flat, flatten, layout_digest, unflatten
from models.federation.work import LocalWork
from models.learning.cohort_gradient import EncodedExample, user_gradients
from models.learning.examples import TrainingExample
from models.learning.learner import encode_example, end_token_of
from models.learning.lora import LoraShape, new_adapter
from models.learning.optimizers import Optimizer, OptimizerSettings
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from schemas.errors import DataInvalid


def local_delta(
    loaded: Loaded,
    work: LocalWork,
    flat: Flat,
    examples: Sequence[TrainingExample],
    after_step: Callable[[], None] = lambda: None,
) -> bytes:
    """Trains from the server's weights `flat` and packs how far they moved, cut to `norm_max`.

    `after_step` is called between two steps: for pauses. The same work on the same examples gives
    the same bytes, where it asks for no noise. Raises DataInvalid where the adapter is not one of
    this model's, or nothing can be learned from.
    """
    shape = LoraShape(work.rank, work.alpha, work.targets)
    model = AdaptedModel(loaded.model, shape)
    try:
        like = _arrays(new_adapter(loaded.model, shape))
        if layout_digest(like) != work.layout:
            raise DataInvalid(
                f"The server's adapter is not one of rank {work.rank} for this device's model.",
                "Give the device the model that the server teaches, with `edge join --model`.",
            )
        device = loaded.model.device
        start = {n: torch.tensor(a, device=device) for n, a in unflatten(flat, like).items()}
        adapter = _trained(model, start, work, _encoded(loaded, work, examples), after_step)
    finally:
        model.close()
    moved = flatten(_arrays({name: adapter[name] - start[name] for name in start}))
    cut = clip(moved, work.norm_max)
    if work.noise_multiplier:
        cut = noised(cut, work.noise_multiplier * work.norm_max)
    return pack(cut, work.compression)


def _encoded(
    loaded: Loaded, work: LocalWork, examples: Sequence[TrainingExample]
) -> list[EncodedExample]:
    """At most `examples_max`, chosen by the round's name, in a shuffled order."""
    if not examples:
        raise DataInvalid(
            "The device has no examples to learn from.", "Add some: `headwater edge add-example`."
        )
    chosen = sorted(examples, key=lambda example: example.example_id)
    random.Random(work.round_id).shuffle(chosen)
    end_token = end_token_of(loaded)
    return [
        encode_example(loaded.tokenizer, end_token, example, work.tokens_max)
        for example in chosen[: work.examples_max]
    ]


def _trained(
    model: AdaptedModel,
    start: Tensors,
    work: LocalWork,
    rows: list[EncodedExample],
    after_step: Callable[[], None],
) -> Tensors:
    adapter = {name: tensor.clone() for name, tensor in start.items()}
    batches = [rows[i : i + work.batch_rows] for i in range(0, len(rows), work.batch_rows)]
    settings = OptimizerSettings(work.optimizer, work.learning_rate)
    optimizer = Optimizer(settings, adapter, work.epochs * len(batches))
    for _ in range(work.epochs):
        for batch in batches:
            gradients, _ = user_gradients(model, adapter, adapter, [batch])
            step = {name: found[0] / len(batch) for name, found in gradients.items()}
            if work.proximal:
                for name, tensor in step.items():
                    tensor.add_(adapter[name] - start[name], alpha=work.proximal)
            optimizer.step(adapter, step)
            after_step()
    return adapter


def _arrays(tensors: Tensors) -> dict[str, Flat]:
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
