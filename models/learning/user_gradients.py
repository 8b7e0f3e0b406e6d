"""One backward pass that gives each user a gradient of their own.

Each user of a batch computes with their own copy of every A and B. The copies are equal, so the
outputs are those of one adapter; but a copy's gradient is its user's alone, summed over that user's
rows. It costs next to nothing: the two products are batched instead of shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.learning.lora import LoraShape, names_of, target_modules
from models.privacy.noise import Tensors


class AdaptedModel:
    """A frozen base whose target layers add an adapter that can be exchanged at any time.

    `close()` takes it off the base again.
    """

    def __init__(self, model: PreTrainedModel, shape: LoraShape, packed: bool = False) -> None:
        """`packed` says that most rows are long and without padding."""
        self.model = model.requires_grad_(False)
        self._attention = model.config._attn_implementation
        if model.device.type == "cpu":
            # torch's fused attention is a third slower on short, padded rows, backwards above all,
            # and makes a step over 512 tokens a third faster.
            model.set_attn_implementation("sdpa" if packed else "eager")
        self._scaling = shape.scaling
        self._weights: Tensors = {}
        # (rows,): the copy that each row of the batch uses.
        self._copy_of_row: Tensor | None = None
        self._hooks = [
            module.register_forward_hook(self._adding(*names_of(name)))
            for name, module in target_modules(model, shape).items()
        ]
        if (head := model.get_output_embeddings()) is not None:
            self._hooks.append(head.register_forward_pre_hook(_contiguous))

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self.model.set_attn_implementation(self._attention)

    @contextmanager
    def using(self, adapter: Tensors) -> Iterator[None]:
        """Forward passes inside use `adapter`, shared by all rows; without gradients of its own."""
        self._weights = adapter
        try:
            yield
        finally:
            self._weights = {}

    @contextmanager
    def copied(
        self, adapter: Tensors, trained: Tensors, users: int, user_of_row: Tensor
    ) -> Iterator[Tensors]:
        """Forward passes inside give each of `users` a copy: (users, ...) tensors with gradients.

        Only `trained`, a part of `adapter`, is copied; all share the rest. `user_of_row` has the
        user's number for each row of the batch, shape (rows,).
        """
        copies = {
            name: tensor.detach().expand(users, *tensor.shape).clone().requires_grad_()
            for name, tensor in trained.items()
        }
        one_row_each = len(user_of_row) == users
        self._weights = adapter | copies
        self._copy_of_row = None if one_row_each else user_of_row
        try:
            yield copies
        finally:
            self._weights = {}
            self._copy_of_row = None

    def _adding(self, a_name: str, b_name: str) -> Callable[..., Tensor | None]:
        def add(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if a_name not in self._weights:
                return None
            x: Tensor = inputs[0]  # (rows, tokens, in)
            # In the base's own format: to bring x to float32 and back costs more than the products.
            a, b = (self._of_rows(self._weights[n]).to(x.dtype) for n in (a_name, b_name))
            hidden = torch.matmul(x, a.transpose(-1, -2)) * self._scaling  # (rows, tokens, rank)
            return output + torch.matmul(hidden, b.transpose(-1, -2))

        return add

    def _of_rows(self, weight: Tensor) -> Tensor:
        if self._copy_of_row is None or weight.ndim == 2:
            return weight
        return weight.index_select(0, self._copy_of_row)


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch multiplies a slice of positions in bfloat16 some 27 times slower than a copy of it."""
    return (inputs[0].contiguous(), *inputs[1:])
