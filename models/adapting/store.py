"""State and offset in one SQLite transaction: after any death both are of the same moment.

What came after that moment is read again from Kafka, in the same order, and makes the same state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from models.durable import open_database
from schemas.errors import DataInvalid

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), next_offset INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS seen (outcome_id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS seen_at ON seen (at_ms);
"""


class AdaptStore:
    """The file of one adapt worker. Not for several threads."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises DataInvalid where it is none of ours."""
        try:
            self._database = open_database(path, _SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataInvalid(
                f"{path} holds no state of ours: {error}.", "Move it away."
            ) from error

    def close(self) -> None:
        self._database.close()

    def read(self) -> tuple[int, bytes] | None:
        """The next offset to be read, and the state at that point; None before the first commit."""
        row = self._database.execute("SELECT next_offset, value FROM state").fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def seen(self, outcome_id: str) -> bool:
        """Whether an outcome was committed as learned from."""
        query = "SELECT 1 FROM seen WHERE outcome_id = ?"
        return self._database.execute(query, (outcome_id,)).fetchone() is not None

    def commit(
        self, next_offset: int, value: bytes, seen: Iterable[tuple[str, int]], forget_before_ms: int
    ) -> None:
        """State, offset and the outcomes learned from since, all or nothing."""
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        try:
            execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (next_offset, value))
            self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", seen)
            execute("DELETE FROM seen WHERE at_ms < ?", (forget_before_ms,))
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
