"""The sum of a cohort's clipped gradients, a few users at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.learning.batches import EncodedAnswer, pad
from models.learning.clipping import clipped_sum, user_norms
from models.learning.losses import answer_log_likelihoods, correction_losses, preference_losses
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An answer to learn from; without a rating, one to become likelier. `weight`: its share."""

    answer: EncodedAnswer
    rating: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class CohortGradient:
    """`total` is the clipped sum, in float64.

    `norms` (users,) and `losses` (of each user's rows, before the step) are private: whoever
    publishes them spends privacy that nobody accounts for.
    """

    total: Tensors
    norms: Tensor
    losses: list[list[float]]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One user's part of a cohort's sum, clipped, in float64; as private as a CohortGradient."""

    gradient: Tensors
    norm: float
    losses: list[float]


def contribution(
    model: AdaptedModel,
    adapter: Tensors,
    trained: Tensors,
    examples: Sequence[EncodedExample],
    norm_max: float | None,
) -> Contribution:
    """What one user adds, computed alone: it does not depend on who else is in the cohort."""
    gradients, (losses,) = user_gradients(model, adapter, trained, [examples])
    norms = user_norms(gradients)
    return Contribution(clipped_sum(gradients, norms, norm_max), float(norms[0]), losses)


def summed(contributions: Sequence[Contribution]) -> CohortGradient:
    """The sum of a cohort's contributions, in their order: equal parts give an equal sum."""
    total = {name: tensor.clone() for name, tensor in contributions[0].gradient.items()}
    for one in contributions[1:]:
        for name, tensor in one.gradient.items():
            total[name] += tensor
    norms = torch.tensor([one.norm for one in contributions], dtype=torch.float64)
    return CohortGradient(total, norms, [one.losses for one in contributions])


def cohort_gradient(
    model: AdaptedModel,
    adapter: Tensors,
    trained: Tensors,
    users: Sequence[Sequence[EncodedExample]],
    norm_max: float | None,
    rows_max: int,
) -> CohortGradient:
    """Each user's rows add up to one gradient, which is cut to `norm_max` (None: not at all).

    It is that of `trained`, a part of `adapter`. At most `rows_max` rows are computed at once,
    unless one user has more.
    """
    total = {
        name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in trained.items()
    }
    norms = torch.zeros(len(users), dtype=torch.float64)
    losses: list[list[float]] = [[] for _ in users]
    for numbers in _grouped(users, rows_max):
        gradients, group_losses = user_gradients(
            model, adapter, trained, [users[n] for n in numbers]
        )
        found = user_norms(gradients)
        for name, tensor in clipped_sum(gradients, found, norm_max).items():
            total[name] += tensor
        norms[numbers] = found.cpu()
        for number, row_losses in zip(numbers, group_losses, strict=True):
            losses[number] = row_losses
    return CohortGradient(total, norms, losses)


def _grouped(users: Sequence[Sequence[EncodedExample]], rows_max: int) -> list[list[int]]:
    """Numbers of users to be computed together: of like length, for less padding."""

    def length(number: int) -> int:
        return max(len(e.answer.prompt) + len(e.answer.answer) for e in users[number])

    groups: list[list[int]] = []
    rows = 0
    for number in sorted(range(len(users)), key=length):
        rows += len(users[number])
        if not groups or rows > rows_max:
            groups.append([])
            rows = len(users[number])
        groups[-1].append(number)
    return groups


def user_gradients(
    model: AdaptedModel,
    adapter: Tensors,
    trained: Tensors,
    users: Sequence[Sequence[EncodedExample]],
) -> tuple[Tensors, list[list[float]]]:
    """Gradients (users, ...) of `trained`, not cut to any norm, and each user's losses."""
    rows = [example for examples in users for example in examples]
    device = next(iter(adapter.values())).device
    counts = torch.tensor([len(examples) for examples in users])
    user_of_row = torch.repeat_interleave(torch.arange(len(users)), counts).to(device)
    base = _base_log_likelihoods(model, rows, device)
    batch = pad([row.answer for row in rows], device)
    with model.copied(adapter, trained, len(users), user_of_row) as copies:
        likelihoods, lengths = answer_log_likelihoods(model.model, batch)
        losses = correction_losses(likelihoods, lengths)
        if base is not None:
            ratings = torch.tensor([row.rating or 0.0 for row in rows], device=device)
            rated = torch.tensor([row.rating is not None for row in rows], device=device)
            losses = torch.where(rated, preference_losses(likelihoods, base, ratings), losses)
        weights = torch.tensor([row.weight for row in rows], device=device)
        (losses * weights).sum().backward()
    gradients = {name: copy.grad for name, copy in copies.items() if copy.grad is not None}
    each = losses.detach().split(counts.tolist())
    return gradients, [found.tolist() for found in each]


def _base_log_likelihoods(
    model: AdaptedModel, rows: Sequence[EncodedExample], device: torch.device
) -> Tensor | None:
    """What the frozen base says of rated rows, and 0 of others, shape (rows,); None without any."""
    rated = [index for index, row in enumerate(rows) if row.rating is not None]
    if not rated:
        return None
    found = torch.zeros(len(rows), device=device)
    with torch.no_grad():
        batch = pad([rows[index].answer for index in rated], device)
        found[rated] = answer_log_likelihoods(model.model, batch)[0]
    return found
