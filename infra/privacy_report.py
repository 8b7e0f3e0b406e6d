"""What each adapter has spent of its budget, computed anew from the ledger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.privacy.ledger import Spent, verify
from models.privacy.ledger_store import LedgerStore
from schemas.errors import LedgerBroken

PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """`epsilon_spent` is what the most exposed user may have lost, recomputed; `epsilon_limit` what
    the plan spends in all. `user_epsilon` has percentiles over those who took part. `guarded`: a
    guard that learns from all users chose what was learned from, which no epsilon covers."""

    adapter: str
    mechanism: str
    delta: float
    epsilon_spent: float | None
    epsilon_limit: float | None
    rounds: int
    rounds_max: int
    users: int
    user_epsilon: dict[str, float]
    ledger_sha256: str
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class UserReport:
    """One person's part in one adapter; rounds count from 0."""

    adapter: str
    user: str
    rounds: list[int]
    epsilon: float | None


def read_spent(store: LedgerStore, adapter: str) -> Spent:
    """Raises LedgerBroken, naming the adapter, where its chain does not hold."""
    try:
        return verify(store.entries(adapter))
    except LedgerBroken as error:
        raise LedgerBroken(f"Adapter {adapter}: {error.message}", error.remedy) from error


def report(spent: Spent) -> AdapterReport:
    """Figures of one adapter; epsilon is none where nothing is promised."""
    opening, plan = spent.opening, spent.opening.plan
    return AdapterReport(
        adapter=opening.adapter,
        mechanism=plan.mechanism,
        delta=plan.delta,
        epsilon_spent=spent.epsilon if plan.private else None,
        epsilon_limit=plan.epsilon() if plan.private else None,
        rounds=spent.rounds,
        rounds_max=plan.rounds_max,
        users=len(spent.user_rounds),
        user_epsilon=_percentiles(spent),
        ledger_sha256=spent.head,
        guarded=bool(opening.settings.get("guarded", False)),
    )


def user_report(spent: Spent, user: str) -> UserReport:
    """What one pseudonym took part in."""
    epsilon = spent.user_epsilon(user) if spent.opening.plan.private else None
    return UserReport(spent.opening.adapter, user, spent.user_rounds.get(user, []), epsilon)


def _percentiles(spent: Spent) -> dict[str, float]:
    if not spent.opening.plan.private or not spent.user_rounds:
        return {}
    # Many users were in the same rounds.
    known = {tuple(rounds): user for user, rounds in spent.user_rounds.items()}
    by_rounds = {rounds: spent.user_epsilon(user) for rounds, user in known.items()}
    each = [by_rounds[tuple(rounds)] for rounds in spent.user_rounds.values()]
    return {f"p{p}": float(np.percentile(each, p)) for p in PERCENTILES}
