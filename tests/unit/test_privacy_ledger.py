"""Participation, the ledger's chain, and the one transaction of a round."""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.privacy.ledger import (
    GENESIS,
    Entry,
    Opening,
    Round,
    declared_epsilon,
    link,
    verify,
)
from models.privacy.ledger_store import LedgerStore
from models.privacy.participation import Participation
from models.privacy.plan import make_plan
from schemas.errors import Fenced, LedgerBroken

PLAN = make_plan(
    "correlated", epsilon=2.0, delta=1e-6, rounds_max=6, participations_max=2, separation_min=2
)
OPENING = Opening(
    adapter="tone",
    plan=PLAN,
    key_commitment="ab" * 32,
    artifact_sha256="00" * 32,
    cohort_size=2,
)
STATE = {"weight": torch.arange(3.0)}


def round_of(number: int, users: tuple[str, ...], **changes: object) -> Round:
    record = Round(
        number=number,
        users=users,
        epsilon=declared_epsilon(PLAN, number + 1),
        delta=PLAN.delta,
        max_grad_norm=1.0,
        offsets={"examples/0": 10 * (number + 1)},
        context="cd" * 32,
        artifact_sha256=f"{number:064x}",
        model_version=f"tone-{number}",
        released=number % 2 == 0,
        time_ms=1_700_000_000_000 + number,
    )
    return msgspec.structs.replace(record, **changes)


ROUNDS = [round_of(0, ("u1", "u2")), round_of(1, ("u3", "u4")), round_of(2, ("u1", "u5"))]


def chained(*records: Opening | Round) -> list[Entry]:
    entries: list[Entry] = []
    for record in records:
        entries.append(link(entries[-1].digest if entries else GENESIS, record))
    return entries


@given(st.lists(st.sets(st.integers(0, 5)), max_size=12), st.integers(1, 3), st.integers(1, 4))
def test_nobody_takes_part_too_often_or_too_soon(
    asking: list[set[int]], times: int, apart: int
) -> None:
    plan = make_plan(
        "gaussian",
        epsilon=1.0,
        delta=1e-6,
        rounds_max=20,
        participations_max=times,
        separation_min=apart,
    )
    participation = Participation(plan)
    rounds: dict[str, list[int]] = {}
    for number, users in enumerate(asking):
        admitted = [str(user) for user in users if participation.admits(str(user), number)]
        participation.record(admitted, number)
        for user in admitted:
            rounds.setdefault(user, []).append(number)
    for taken in rounds.values():
        assert len(taken) <= times
        assert all(b - a >= apart for a, b in itertools.pairwise(taken))


def test_without_privacy_everybody_may_always_take_part() -> None:
    participation = Participation(make_plan("none", epsilon=1.0, delta=1e-6, rounds_max=9))
    participation.record(["u"] * 5, 0)
    assert participation.admits("u", 0)


def test_a_ledger_is_verified_and_epsilon_computed_anew() -> None:
    spent = verify(chained(OPENING, *ROUNDS))
    assert spent.rounds == 3
    assert spent.epsilon == PLAN.epsilon(3)
    assert spent.user_rounds["u1"] == [0, 2]
    assert spent.user_epsilon("u1") == pytest.approx(spent.epsilon)
    assert spent.user_epsilon("u5") < spent.user_epsilon("u2") < spent.epsilon
    assert spent.user_epsilon("stranger") == 0.0


def test_an_unprotected_ledger_promises_nothing() -> None:
    opening = msgspec.structs.replace(
        OPENING, plan=make_plan("none", epsilon=1.0, delta=1e-6, rounds_max=6)
    )
    rounds = [round_of(0, ("u",), epsilon=None), round_of(1, ("u",), epsilon=None)]
    assert verify(chained(opening, *rounds)).epsilon == math.inf
    with pytest.raises(LedgerBroken, match="epsilon"):
        verify(chained(opening, round_of(0, ("u",), epsilon=1.0)))


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([ROUNDS[0]], "opening"),
        ([], "opening"),
        ([OPENING, OPENING], "not round 0"),
        ([OPENING, ROUNDS[1]], "not round 0"),
        ([OPENING, ROUNDS[0], ROUNDS[0]], "not round 1"),
        ([OPENING, ROUNDS[0], round_of(1, ("u2",))], "too often or too soon"),
        ([OPENING, round_of(0, ("u1", "u1"))], "a user twice"),
        ([OPENING, round_of(0, ("u1",), epsilon=0.1)], "epsilon"),
        ([OPENING, round_of(0, ("u1",), epsilon=None)], "epsilon"),
        ([OPENING, round_of(0, ("u1",), delta=1e-3)], "epsilon"),
        ([OPENING, ROUNDS[0], round_of(1, (), offsets={"examples/0": 5})], "goes back"),
        ([OPENING, *[round_of(number, ()) for number in range(7)]], "after 6 rounds"),
    ],
)
def test_a_ledger_that_breaks_a_rule_is_refused(
    records: list[Opening | Round], reason: str
) -> None:
    with pytest.raises(LedgerBroken, match=reason):
        verify(chained(*records))


@given(st.data())
def test_any_changed_missing_or_exchanged_entry_is_seen(data: st.DataObject) -> None:
    entries = chained(OPENING, *ROUNDS)
    index = data.draw(st.integers(0, len(entries) - 2))
    kind = data.draw(st.sampled_from(["byte", "missing", "exchanged", "digest"]))
    if kind == "byte":
        body = bytearray(entries[index].body)
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= data.draw(st.integers(1, 255))
        entries[index] = Entry(bytes(body), entries[index].digest)
    elif kind == "missing":
        del entries[index]
    elif kind == "exchanged":
        entries[index], entries[index + 1] = entries[index + 1], entries[index]
    else:
        entries[index] = Entry(entries[index].body, "0" * 64)
    with pytest.raises(LedgerBroken):
        verify(entries)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    opened = LedgerStore(tmp_path / "ledger" / "ledger.db")
    opened.open_adapter(OPENING, STATE)
    yield opened
    opened.close()


def test_a_round_is_stored_whole(store: LedgerStore) -> None:
    for number, record in enumerate(ROUNDS):
        state = {"weight": torch.arange(3.0) * number}
        store.commit_round("tone", record, [f"e{number}a", f"e{number}b"], state)
    resumed = store.open_adapter(OPENING, STATE)
    assert resumed.rounds == 3
    assert torch.equal(resumed.state["weight"], torch.arange(3.0) * 2)
    assert resumed.offsets == {"examples/0": 30}
    assert (resumed.taken["u1"].count, resumed.taken["u1"].last_round) == (2, 2)
    assert verify(store.entries("tone")).rounds == 3
    assert [release.record.number for release in store.unpublished("tone")] == [0, 2]
    store.mark_published("tone", "tone-0")
    (left,) = store.unpublished("tone")
    assert left.record == ROUNDS[2]
    assert left.digest == verify(store.entries("tone")).head


def test_only_its_owner_may_read_the_file(store: LedgerStore, tmp_path: Path) -> None:
    store.commit_round("tone", ROUNDS[0], ["e1"], STATE)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ledger").iterdir()}
    assert "ledger.db-wal" in modes and set(modes.values()) == {0o600}


def test_an_example_is_used_once_and_a_refused_round_changes_nothing(store: LedgerStore) -> None:
    store.commit_round("tone", ROUNDS[0], ["e1"], STATE)
    with pytest.raises(LedgerBroken, match="second time"):
        store.commit_round("tone", ROUNDS[1], ["e2", "e1"], {"weight": torch.zeros(3)})
    resumed = store.open_adapter(OPENING, STATE)
    assert resumed.rounds == 1 and "u3" not in resumed.taken
    assert torch.equal(resumed.state["weight"], torch.arange(3.0))
    store.commit_round("tone", ROUNDS[1], ["e2"], STATE)


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_second_learner_is_fenced(store: LedgerStore, number: int) -> None:
    store.commit_round("tone", ROUNDS[0], [], STATE)
    with pytest.raises(Fenced, match="not the next one"):
        store.commit_round("tone", round_of(number, ()), [], STATE)


def test_a_promise_is_not_changed_afterwards(store: LedgerStore) -> None:
    more_noise = msgspec.structs.replace(PLAN, noise_multiplier=9.0)
    for change in ({"plan": more_noise}, {"key_commitment": "cd" * 32}, {"cohort_size": 3}):
        with pytest.raises(LedgerBroken, match="another plan, key or settings"):
            store.open_adapter(msgspec.structs.replace(OPENING, **change), STATE)
    other = msgspec.structs.replace(OPENING, adapter="other", plan=more_noise)
    assert store.open_adapter(other, STATE).rounds == 0


def test_the_database_itself_refuses_to_change_an_entry(store: LedgerStore) -> None:
    for statement in ("UPDATE ledger SET digest = ''", "DELETE FROM ledger"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store._database.execute(statement)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(LedgerBroken, match="is no ledger"):
        LedgerStore(path)
