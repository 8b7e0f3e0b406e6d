"""Everything that a round changes, in one SQLite transaction.

The order of a round:
1. The cohort is read; the step is computed in memory.
2. The artifact is written and made durable, in a folder named by the digest of its input.
3. ONE transaction: ledger entry, participation counts, used examples, offsets, state (weights,
   optimizer, noise), and the release to be published.
4. The release is published, from what the transaction wrote, and marked as published.

Killed before 3, nothing has happened but for an artifact that nothing refers to: the same cohort
is read again, and draws the same noise. Killed between 3 and 4, the release is published after the
restart. Killed within 4, it is published twice, with the same id.

Why not a Kafka transaction: weights, optimizer and noise are megabytes, over the limit of a record;
that no user or example comes twice is a look-up, which a log cannot refuse; and the ledger could
only be read from its beginning. So offsets live here, not in Kafka, and a learner seeks to them.
The price: the file belongs to one machine's disk, and must never be replaced by an older copy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from safetensors.torch import load, save

from models.durable import open_database
from models.privacy.ledger import GENESIS, Entry, Opening, Round, link
from models.privacy.ledger_schema import SCHEMA, Release, Resumed
from models.privacy.noise import Tensors
from models.privacy.participation import Taken
from schemas.errors import Fenced, LedgerBroken


class LedgerStore:
    """One file for all adapters of a learner. Not for several threads."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """Opens or makes the file. Raises LedgerBroken where it is none of ours.

        What is read only refuses every change, also where a mistake of ours would make one.
        """
        try:
            # The noise in it is as secret as the key.
            self._database = open_database(path, SCHEMA)
        except sqlite3.DatabaseError as error:
            raise LedgerBroken(f"{path} is no ledger: {error}.", "Name another file.") from error
        self._database.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")

    def close(self) -> None:
        self._database.close()

    def open_adapter(self, opening: Opening, state: Tensors) -> Resumed:
        """Begins an adapter, or resumes the one that has begun with the same opening.

        Raises LedgerBroken where it began with another: a promise is not changed afterwards.
        """
        with self._transaction():
            first = self._entry(opening.adapter, 0)
            entry = link(GENESIS, opening)
            if first is None:
                self._append(opening.adapter, 0, entry)
                self._put_state(opening.adapter, 0, state)
            elif first.digest != entry.digest:
                raise LedgerBroken(
                    f"Adapter {opening.adapter} began with another plan, key or settings.",
                    "Restore its settings, or begin an adapter with a new name.",
                )
        return self._resumed(opening)

    def commit_round(
        self, adapter: str, record: Round, examples: Sequence[str], state: Tensors
    ) -> str:
        """Step 3 of the order above; returns the digest of the ledger's new entry.

        Raises Fenced where another learner did this round, LedgerBroken for an example used before.
        Nothing has changed then.
        """
        with self._transaction():
            last = self._entry(adapter, record.number)
            if last is None or self._entry(adapter, record.number + 1) is not None:
                raise Fenced(
                    f"Round {record.number} of adapter {adapter} is not the next one.",
                    "Run one learner for an adapter.",
                )
            entry = link(last.digest, record)
            self._append(adapter, record.number + 1, entry)
            self._take_part(adapter, record)
            self._use(adapter, examples, record.number)
            self._put_state(adapter, record.number + 1, state)
            if record.released:
                self._database.execute(
                    "INSERT INTO releases VALUES (?, ?, ?, 0)",
                    (adapter, record.model_version, record.number),
                )
        return entry.digest

    def adapters(self) -> list[str]:
        """The adapters that have begun."""
        rows = self._database.execute("SELECT DISTINCT adapter FROM ledger ORDER BY adapter")
        return [adapter for (adapter,) in rows]

    def opening(self, adapter: str) -> Opening | None:
        """What an adapter began with, if it has."""
        first = self._entry(adapter, 0)
        return None if first is None else msgspec.json.decode(first.body, type=Opening)

    def used(self, adapter: str, example_id: str) -> bool:
        """Whether a round has learned from an example."""
        row = self._database.execute(
            "SELECT 1 FROM examples WHERE adapter = ? AND example_id = ?", (adapter, example_id)
        ).fetchone()
        return row is not None

    def examples(self, adapter: str, rounds: int) -> dict[str, int]:
        """The examples that the first `rounds` learned from, and in which round each was."""
        found = self._database.execute(
            "SELECT example_id, round FROM examples WHERE adapter = ? AND round < ?",
            (adapter, rounds),
        )
        return dict(found.fetchall())

    def entries(self, adapter: str) -> Iterator[Entry]:
        """The ledger of an adapter, from its opening on, for `ledger.verify`."""
        rows = self._database.execute(
            "SELECT body, digest FROM ledger WHERE adapter = ? ORDER BY position", (adapter,)
        )
        return (Entry(body, digest) for body, digest in rows)

    def rounds(self, adapter: str) -> list[Round]:
        """All rounds of an adapter as they are written; `ledger.verify` says whether they hold."""
        return [msgspec.json.decode(e.body, type=Round) for e in list(self.entries(adapter))[1:]]

    def unpublished(self, adapter: str) -> list[Release]:
        """Releases that step 4 has yet to publish, oldest first."""
        rows = self._database.execute(
            "SELECT body, digest FROM ledger JOIN releases ON ledger.adapter = releases.adapter"
            " AND position = round + 1 WHERE ledger.adapter = ? AND NOT published ORDER BY round",
            (adapter,),
        )
        return [Release(msgspec.json.decode(body, type=Round), digest) for body, digest in rows]

    def mark_published(self, adapter: str, model_version: str) -> None:
        """Step 4 is done for this release."""
        self._database.execute(
            "UPDATE releases SET published = 1 WHERE adapter = ? AND model_version = ?",
            (adapter, model_version),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a second learner waits here instead of failing half-way.
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _entry(self, adapter: str, position: int) -> Entry | None:
        row = self._database.execute(
            "SELECT body, digest FROM ledger WHERE adapter = ? AND position = ?",
            (adapter, position),
        ).fetchone()
        return Entry(*row) if row else None

    def _append(self, adapter: str, position: int, entry: Entry) -> None:
        self._database.execute(
            "INSERT INTO ledger VALUES (?, ?, ?, ?)", (adapter, position, entry.body, entry.digest)
        )

    def _take_part(self, adapter: str, record: Round) -> None:
        self._database.executemany(
            "INSERT INTO participation VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE"
            " SET count = count + 1, last_round = excluded.last_round",
            [(adapter, user, record.number) for user in record.users],
        )
        self._database.executemany(
            "INSERT INTO offsets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
            [(adapter, source, offset) for source, offset in record.offsets.items()],
        )

    def _use(self, adapter: str, examples: Sequence[str], number: int) -> None:
        try:
            self._database.executemany(
                "INSERT INTO examples VALUES (?, ?, ?)",
                [(adapter, example, number) for example in examples],
            )
        except sqlite3.IntegrityError as error:
            raise LedgerBroken(
                f"Round {number} of adapter {adapter} would use an example a second time.",
                "Read from the stored offsets on; were they changed by hand?",
            ) from error

    def _put_state(self, adapter: str, rounds: int, state: Tensors) -> None:
        self._database.execute(
            "INSERT INTO states VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET rounds = excluded.rounds, tensors = excluded.tensors",
            (adapter, rounds, save(state)),
        )

    def _resumed(self, opening: Opening) -> Resumed:
        execute, key = self._database.execute, (opening.adapter,)
        rounds, tensors = execute(
            "SELECT rounds, tensors FROM states WHERE adapter = ?", key
        ).fetchone()
        taken = execute(
            "SELECT user, count, last_round FROM participation WHERE adapter = ?", key
        ).fetchall()
        offsets = execute("SELECT source, next FROM offsets WHERE adapter = ?", key).fetchall()
        return Resumed(
            opening=opening,
            rounds=rounds,
            state=load(tensors),
            taken={user: Taken(count, last) for user, count, last in taken},
            offsets=dict(offsets),
        )
