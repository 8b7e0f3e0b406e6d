"""What tunings have spent: of all candidates of one together, computed anew from its ledger."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from agents.learning.paths import learning_folder
from agents.settings import LearnSettings
from infra.privacy_report import read_spent
from models.privacy.composition import composed_epsilon
from models.privacy.ledger_store import LedgerStore


@dataclass(frozen=True, slots=True)
class TuningReport:
    """`epsilon_spent` is what somebody may have lost whom every candidate has learned from, and
    `epsilon_limit` what the tuning may spend; both none where its examples were public, or nothing
    was promised. What it spent adds to what an adapter spends."""

    tuning: str
    mechanism: str
    candidates: int
    rounds: int
    delta: float
    epsilon_spent: float | None
    epsilon_limit: float | None


def tuning_reports(settings: LearnSettings) -> list[TuningReport]:
    """Of all tunings in the learner's folder. Raises LedgerBroken where a ledger does not hold."""
    ledgers = sorted((learning_folder(settings) / "tuning").glob("*/ledger.db"))
    found = []
    for path in ledgers:
        with closing(LedgerStore(path, read_only=True)) as store:
            found.append(_report(path.parent.name, store))
    return found


def _report(name: str, store: LedgerStore) -> TuningReport:
    all_spent = [read_spent(store, candidate) for candidate in store.adapters()]
    plans = [spent.opening.plan for spent in all_spent]
    private = any(spent.opening.settings.get("examples") == "private" for spent in all_spent)
    delta = plans[0].delta if plans else 0.0
    spent_mus = [spent.opening.plan.mu(spent.rounds) for spent in all_spent] if private else []
    return TuningReport(
        tuning=name,
        mechanism=plans[0].mechanism if plans else "none",
        candidates=len(plans),
        rounds=sum(spent.rounds for spent in all_spent),
        delta=delta,
        epsilon_spent=composed_epsilon(spent_mus, delta) if private else None,
        epsilon_limit=composed_epsilon([plan.mu() for plan in plans], delta) if private else None,
    )
