"""What a learner commits itself to before it sees anybody's data, and what that costs.

The accountant stands apart from the noise: everything here is a function of the plan alone, so
that anybody can compute it again from the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from models.privacy.banded import INDEPENDENT, Banded
from models.privacy.buffered import BufferedToeplitz, optimise_buffers
from models.privacy.gaussian import epsilon_of, mu_of
from models.privacy.toeplitz import response_norm, sensitivity
from schemas.errors import SettingsInvalid

MechanismName = Literal["none", "gaussian", "correlated"]

# A contribution to a count is +1/2 or -1/2, so that leaving it out moves the count by 1/2.
_COUNT_SENSITIVITY = 0.5
# Buffers of a correlated plan: more gain nothing below 10,000 rounds, fewer cost 1 % and more.
_BUFFERS = 4


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Mechanism, participation rules and noise; fixed for the life of an adapter.

    A user is in at most `participations_max` of `rounds_max` rounds, and any two of a user's
    rounds are `separation_min` or more apart (1: one round after the other is allowed).
    `noise_multiplier` is the standard deviation of the independent Gaussian noise behind the
    stream, in units of max_grad_norm. `count_noise_multiplier` is that of the adaptive clipping's
    count; none where the norm is fixed. Raises SettingsInvalid for values out of range.
    """

    mechanism: MechanismName
    rounds_max: int
    participations_max: int = 1
    separation_min: int = 1
    noise_multiplier: float = 0.0
    count_noise_multiplier: float | None = None
    strategy: Banded | BufferedToeplitz = INDEPENDENT
    delta: float = 1e-6

    def __post_init__(self) -> None:
        counts = (self.rounds_max, self.participations_max, self.separation_min)
        count_noise = self.count_noise_multiplier
        faults = {
            "counts must be 1 or more": min(counts) < 1,
            "delta must be between 0 and 1": not 0.0 < self.delta < 1.0,
            "a private mechanism needs noise": (self.noise_multiplier > 0.0)
            == (self.mechanism == "none"),
            "only correlated noise has a strategy": self.mechanism != "correlated"
            and self.strategy != INDEPENDENT,
            "the noise of the count must be positive": count_noise is not None
            and (count_noise <= 0.0 or self.mechanism == "none"),
        }
        if found := [fault for fault, present in faults.items() if present]:
            raise SettingsInvalid(f"Privacy plan: {'; '.join(found)}.", "Use make_plan.")

    @property
    def private(self) -> bool:
        return self.mechanism != "none"

    def epsilon(self, rounds: int | None = None) -> float:
        """What the most exposed user may have lost after `rounds` (all): infinite for `none`."""
        return self._epsilon(*self._exposed(rounds)) if rounds != 0 else 0.0

    def mu(self, rounds: int | None = None) -> float:
        """The same as the parameter of a Gaussian mechanism, whose squares add up."""
        return self._mu(*self._exposed(rounds)) if rounds != 0 else 0.0

    def _exposed(self, rounds: int | None) -> tuple[float, int]:
        """How far the most exposed user moves C G, and in how many rounds this user is."""
        rounds = self.rounds_max if rounds is None else min(rounds, self.rounds_max)
        moved = sensitivity(
            self.strategy.coefficients(rounds), rounds, self.participations_max, self.separation_min
        )
        return moved, self.participations(rounds)

    def participations(self, rounds: int) -> int:
        """How often one user may have taken part in `rounds`."""
        return min(self.participations_max, -(-rounds // self.separation_min))

    def user_epsilon(self, steps: Sequence[int], rounds: int) -> float:
        """What a user who was in the rounds `steps` (from 0) has lost after `rounds` in all."""
        if not steps:
            return 0.0
        return self._epsilon(response_norm(self.strategy.coefficients(rounds), steps), len(steps))

    def _epsilon(self, moved: float, times: int) -> float:
        return epsilon_of(self._mu(moved, times), self.delta) if self.private else math.inf

    def _mu(self, moved: float, times: int) -> float:
        if not self.private:
            return math.inf
        mu_squared = (moved / self.noise_multiplier) ** 2
        if self.count_noise_multiplier is not None:
            mu_squared += times * (_COUNT_SENSITIVITY / self.count_noise_multiplier) ** 2
        return math.sqrt(mu_squared)


def make_plan(
    mechanism: MechanismName,
    *,
    epsilon: float,
    delta: float,
    rounds_max: int,
    participations_max: int = 1,
    separation_min: int = 1,
    count_share: float = 0.0,
) -> Plan:
    """The plan with the least noise whose `epsilon()` is at most `epsilon` at `delta`.

    `count_share`, in [0, 1), of the budget (of mu squared, which is what adds up) goes to adaptive
    clipping. `none` spends no budget and ignores both. Raises SettingsInvalid out of range.
    """
    rules = Plan(
        mechanism="none",
        rounds_max=rounds_max,
        participations_max=participations_max,
        separation_min=separation_min,
        delta=delta,
    )
    if mechanism == "none":
        return rules
    if not 0.0 <= count_share < 1.0:
        raise SettingsInvalid(f"count_share must be in [0, 1), not {count_share}.", "Use 0.05.")
    strategy = (
        optimise_buffers(rounds_max, _BUFFERS, participations_max, separation_min)
        if mechanism == "correlated"
        else INDEPENDENT
    )
    mu = mu_of(epsilon, delta)
    moved = sensitivity(
        strategy.coefficients(rounds_max), rounds_max, participations_max, separation_min
    )
    times = rules.participations(rounds_max)
    counted = _COUNT_SENSITIVITY * math.sqrt(times / count_share) / mu if count_share else None
    return msgspec.structs.replace(
        rules,
        mechanism=mechanism,
        noise_multiplier=moved / (mu * math.sqrt(1.0 - count_share)),
        count_noise_multiplier=counted,
        strategy=strategy,
    )
