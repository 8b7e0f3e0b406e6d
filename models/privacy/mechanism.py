"""What stands between a round's sum of clipped contributions and the optimizer."""

from __future__ import annotations

from typing import Protocol

import torch

from models.privacy.noise import NoiseStream, Shapes, Tensors
from models.privacy.plan import Plan
from models.privacy.randomness import NoiseKey, label_of
from schemas.errors import BudgetSpent, SettingsInvalid


class Mechanism(Protocol):
    """One round after the other; never the same round twice."""

    plan: Plan

    @property
    def step(self) -> int:
        """Rounds done."""

    def privatise(self, total: Tensors, norm: float, context: bytes) -> Tensors:
        """`total` as it may be released; the same names and shapes.

        `total` is the sum over users of contributions, each of L2 norm <= `norm` over all tensors
        together; `context` is a digest of the round's input. Raises BudgetSpent after the plan's
        last round.
        """

    def privatise_count(self, count: float, context: bytes) -> float:
        """The count of adaptive clipping as it may be used: call it before `privatise`.

        Raises SettingsInvalid where the plan has no share for it.
        """

    def state(self) -> Tensors:
        """What `restore` needs to go on exactly as if there had been no restart."""

    def restore(self, state: Tensors) -> None:
        """Raises LedgerBroken where the state is of another mechanism."""


class Unprotected:
    """`none`: releases the sums as they are."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.step = 0

    def privatise(self, total: Tensors, norm: float, context: bytes) -> Tensors:
        _check_rounds(self.plan, self.step)
        self.step += 1
        return total

    def privatise_count(self, count: float, context: bytes) -> float:
        return count

    def state(self) -> Tensors:
        return {"step": torch.tensor([self.step], dtype=torch.int64)}

    def restore(self, state: Tensors) -> None:
        self.step = int(state["step"].item())


class GaussianNoise:
    """`gaussian` and `correlated`: they differ in the plan's strategy alone."""

    def __init__(self, plan: Plan, shapes: Shapes, key: NoiseKey, hardened: bool) -> None:
        self.plan = plan
        self._key = key
        self._hardened = hardened
        self._stream = NoiseStream(plan.strategy, shapes, key, hardened)

    @property
    def step(self) -> int:
        return self._stream.step

    def privatise(self, total: Tensors, norm: float, context: bytes) -> Tensors:
        _check_rounds(self.plan, self.step)
        noise = self._stream.next(context)
        std = self.plan.noise_multiplier * norm
        # Added in double precision: the rounding to the tensor's own format comes after the noise.
        return {
            name: (t.detach().to("cpu", torch.float64) + std * noise[name]).to(t.device, t.dtype)
            for name, t in total.items()
        }

    def privatise_count(self, count: float, context: bytes) -> float:
        std = self.plan.count_noise_multiplier
        if std is None:
            raise SettingsInvalid(
                "Adaptive clipping has no share of this plan's budget.",
                "Make the plan with a count_share, or use a fixed norm.",
            )
        label = label_of("count", self.step, "", context)
        return count + std * float(self._key.normals(label, 1, self._hardened)[0])

    def state(self) -> Tensors:
        return self._stream.state()

    def restore(self, state: Tensors) -> None:
        self._stream.restore(state)


def open_mechanism(
    plan: Plan, shapes: Shapes, key: NoiseKey | None = None, hardened: bool = True
) -> Mechanism:
    """The mechanism of a plan at round 0; a private one draws a key of its own without `key`.

    A key is for one adapter: give each its own.
    """
    if not plan.private:
        return Unprotected(plan)
    return GaussianNoise(plan, shapes, key or NoiseKey.generate(), hardened)


def _check_rounds(plan: Plan, step: int) -> None:
    if step >= plan.rounds_max:
        raise BudgetSpent(
            f"All {plan.rounds_max} rounds of the privacy plan are done.",
            "Learning stops here; serving goes on. Begin a new adapter with a new plan.",
        )
