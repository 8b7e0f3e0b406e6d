"""Files that are on the disk before anybody relies on them."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, as a whole or not at all, for its owner alone to read.

    For one writer at a time: what a killed one left beside it is written over.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.touch(mode=0o600)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names of files are part of their folder: they last once it is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """A database of SQLite for its owner alone, whose commits return when they are on the disk.

    Transactions are the caller's to begin. Raises sqlite3.DatabaseError for another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite's other files take these rights over.
    path.touch(mode=0o600)
    database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(schema)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
