"""Users' gradients, each cut to a norm, and added up."""

from __future__ import annotations

import torch
from torch import Tensor

from models.privacy.noise import Tensors

# For the rounding errors of the norm itself.
_MARGIN = 1.0 - 1e-9


def user_norms(gradients: Tensors) -> Tensor:
    """The L2 norm over all tensors together, of (users, ...); (users,) in float64."""
    norms = [
        torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64)
        for g in gradients.values()
    ]
    together: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return together


def clipped_sum(gradients: Tensors, norms: Tensor, norm_max: float | None) -> Tensors:
    """The sum over users of gradients that are no longer than `norm_max`; no limit for None.

    In float64, so that what one user adds does not depend, by rounding, on what others add. A
    gradient that is not finite counts as zero: it would undo the noise and say so to everybody.
    """
    finite = torch.isfinite(norms)
    weights = finite.double()
    if norm_max is not None:
        weights = weights * (_MARGIN * norm_max / norms).clamp(max=1.0).nan_to_num(0.0)
    if not bool(finite.all()):
        gradients = {name: g.nan_to_num(0.0, 0.0, 0.0) for name, g in gradients.items()}
    return {
        name: (weights @ g.flatten(1).double()).reshape(g.shape[1:])
        for name, g in gradients.items()
    }
