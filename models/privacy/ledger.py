"""The ledger: who took part in what, and what it cost; a chain that nobody can change unseen.

Each entry's digest covers its body and the digest before it. The chain shows a changed, inserted
or missing entry; that its *end* was cut off shows only against a digest kept elsewhere, for which
every published release carries the digest of its entry.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from models.privacy.participation import Participation
from models.privacy.plan import Plan
from schemas.errors import LedgerBroken, SettingsInvalid

# Before the first entry.
GENESIS = "0" * 64
# A recomputed epsilon may differ in its last digits, between versions of scipy, say.
_EPSILON_SLACK = 1e-6


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """An adapter begins: what it promised before it saw any data.

    `key_commitment` names the noise key without telling it. `settings` are the learner's.
    """

    adapter: str
    plan: Plan
    key_commitment: str
    artifact_sha256: str
    cohort_size: int
    settings: dict[str, str | int | float | bool] = {}


class Round(msgspec.Struct, frozen=True, kw_only=True, tag="round"):
    """One optimizer step on one cohort.

    `number` counts from 0; `epsilon` is what the most exposed user may have lost with this round,
    none where nothing is promised; `offsets` are the next to be read of each source; `context` is
    the digest of all that the step was computed from. `released` tells whether it went live, and
    `parent_version` over which version; none where that is the release before.
    """

    number: int
    users: tuple[str, ...]
    epsilon: float | None
    delta: float
    max_grad_norm: float
    offsets: dict[str, int]
    context: str
    artifact_sha256: str
    model_version: str
    released: bool
    time_ms: int
    evaluation: dict[str, float] = {}
    parent_version: str | None = None


class Entry(msgspec.Struct, frozen=True):
    """A link of the chain; `body` is the JSON of an Opening or a Round."""

    body: bytes
    digest: str


@dataclass(slots=True)
class Spent:
    """What `verify` found: recomputed, not read."""

    opening: Opening
    head: str
    rounds: int = 0
    epsilon: float = 0.0
    user_rounds: dict[str, list[int]] = field(default_factory=dict)

    def user_epsilon(self, user: str) -> float:
        """Epsilon of one user, from the rounds that this user was in."""
        return self.opening.plan.user_epsilon(self.user_rounds.get(user, []), self.rounds)


def link(previous: str, record: Opening | Round) -> Entry:
    """The entry that follows the one with the digest `previous`."""
    body = msgspec.json.encode(record, order="deterministic")
    return Entry(body, _digest(previous, body))


def verify(entries: Iterable[Entry]) -> Spent:
    """Reads a ledger from its first entry to its last, and computes everything anew.

    Raises LedgerBroken, with the entry's number, where the chain does not hold, a round is missing
    or twice, a user took part too often or too soon, an offset went back, or epsilon is wrong.
    """
    records = _read(entries)
    opening, head = next(records, (None, GENESIS))
    if not isinstance(opening, Opening):
        raise _broken(0, "it is not an adapter's opening")
    spent = Spent(opening, head)
    participation = Participation(opening.plan)
    offsets: dict[str, int] = {}
    for record, head in records:
        if not isinstance(record, Round) or record.number != spent.rounds:
            raise _broken(spent.rounds + 1, f"it is not round {spent.rounds}")
        _check_round(record, opening.plan, participation, offsets)
        spent.head = head
        spent.rounds += 1
        for user in record.users:
            spent.user_rounds.setdefault(user, []).append(record.number)
    spent.epsilon = opening.plan.epsilon(spent.rounds)
    return spent


def declared_epsilon(plan: Plan, rounds: int) -> float | None:
    """What a round's record says: epsilon after `rounds`, or nothing where nothing is promised."""
    return plan.epsilon(rounds) if plan.private else None


def _read(entries: Iterable[Entry]) -> Iterator[tuple[Opening | Round, str]]:
    """Each record with its digest, once that has been seen to fit."""
    previous = GENESIS
    for index, entry in enumerate(entries):
        if entry.digest != _digest(previous, entry.body):
            raise _broken(index, "its digest does not fit its body and the entry before")
        previous = entry.digest
        try:
            yield msgspec.json.decode(entry.body, type=Opening | Round), entry.digest
        except (msgspec.DecodeError, SettingsInvalid) as error:
            raise _broken(index, f"it cannot be read: {error}") from error


def _check_round(
    record: Round, plan: Plan, participation: Participation, offsets: dict[str, int]
) -> None:
    """One round against the plan and what came before, to which it is then added."""
    index = record.number + 1
    if record.number >= plan.rounds_max:
        raise _broken(index, f"the plan ends after {plan.rounds_max} rounds")
    if len(set(record.users)) != len(record.users):
        raise _broken(index, "it counts a user twice")
    for user in record.users:
        if not participation.admits(user, record.number):
            raise _broken(index, f"user {user} took part too often or too soon")
    participation.record(record.users, record.number)
    for source, offset in record.offsets.items():
        if offset < offsets.get(source, 0):
            raise _broken(index, f"its offset in {source} goes back")
    offsets.update(record.offsets)
    expected = declared_epsilon(plan, record.number + 1)
    if not _same(record.epsilon, expected) or record.delta != plan.delta:
        raise _broken(index, f"it says epsilon {record.epsilon}, which is {expected}")


def _same(said: float | None, expected: float | None) -> bool:
    if said is None or expected is None:
        return said is expected
    return math.isclose(said, expected, rel_tol=_EPSILON_SLACK)


def _digest(previous: str, body: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(previous) + body).hexdigest()


def _broken(index: int, reason: str) -> LedgerBroken:
    return LedgerBroken(
        f"Entry {index} of the privacy ledger does not hold: {reason}.",
        "Stop learning with this adapter and restore the ledger from its last good backup, "
        "but never continue from a ledger older than the last release.",
    )
