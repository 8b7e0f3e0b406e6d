"""Successive halving (Jamieson & Talwalkar 2016) over learners that read the same stream.

All candidates learn from the same chunks of examples, each in cohorts of its own size, so that at
the end of a chunk all have learned from the same examples. After each rung the better half stays
and goes on from where it is; a rung is twice as long as the one before. What is decided here is a
function of the candidates' rounds in the ledger alone: there is no other state to be lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec

from models.privacy.ledger import Round

# What a round's evaluation calls the figure that candidates are compared by; less is better.
SCORE = "loss"


class Candidate(msgspec.Struct, frozen=True):
    """One way to learn; what is tuned, and nothing else."""

    learning_rate: float
    rank: int
    max_grad_norm: float
    cohort_size: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long each rung is, in chunks of `chunk` examples of different users."""

    rungs: tuple[int, ...]
    chunk: int

    @property
    def chunks(self) -> int:
        """Of all rungs: what one candidate learns from at most."""
        return sum(self.rungs)

    def rounds(self, candidate: Candidate) -> int:
        """What a candidate does that stays to the end."""
        return self.chunks * self.in_chunk(candidate)

    def in_chunk(self, candidate: Candidate) -> int:
        """Rounds of a candidate in a chunk."""
        return self.chunk // candidate.cohort_size

    def span(self, rung: int, candidate: Candidate) -> range:
        """The numbers of a candidate's rounds in a rung."""
        begin = sum(self.rungs[:rung]) * self.in_chunk(candidate)
        return range(begin, begin + self.rungs[rung] * self.in_chunk(candidate))


@dataclass(frozen=True, slots=True)
class RungResult:
    """What a rung came to: losses by the candidate's number, and who stays."""

    rung: int
    scores: dict[int, float]
    kept: tuple[int, ...]


def candidates_of(
    rates: Sequence[float], ranks: Sequence[int], norms: Sequence[float], cohorts: Sequence[int]
) -> list[Candidate]:
    """All combinations, each once, in a fixed order."""
    found = {Candidate(*values): None for values in product(rates, ranks, norms, cohorts)}
    return list(found)


def schedule_of(candidates: Sequence[Candidate], users: int) -> Schedule:
    """Rungs until one is left; the first has `users` examples, rounded up to whole chunks."""
    chunk = math.lcm(*(candidate.cohort_size for candidate in candidates))
    first = max(1, math.ceil(users / chunk))
    count = max(1, math.ceil(math.log2(len(candidates))))
    return Schedule(tuple(first * 2**rung for rung in range(count)), chunk)


def results(
    candidates: Sequence[Candidate],
    schedule: Schedule,
    rounds: Mapping[int, Sequence[Round]],
    last_only: bool,
) -> list[RungResult]:
    """The rungs that are over, as the candidates' rounds tell. With `last_only` the last round of a
    rung is what counts, else the mean of all of them."""
    alive: Sequence[int] = range(len(candidates))
    found: list[RungResult] = []
    for rung in range(len(schedule.rungs)):
        scores = {}
        for number in alive:
            span = schedule.span(rung, candidates[number])
            if len(rounds[number]) < span.stop:
                return found
            losses = [rounds[number][place].evaluation.get(SCORE, math.inf) for place in span]
            scores[number] = losses[-1] if last_only else math.fsum(losses) / len(losses)
        alive = _better_half(scores)
        found.append(RungResult(rung, scores, tuple(alive)))
    return found


def _better_half(scores: Mapping[int, float]) -> list[int]:
    """Ties, and what came out as no number, go to the earlier one and to the end."""
    ranked = sorted(scores, key=lambda n: (math.isnan(scores[n]), scores[n], n))
    return sorted(ranked[: math.ceil(len(ranked) / 2)])
