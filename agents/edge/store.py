"""The device's own examples, encrypted on its disk, and what left the device because of them.

Each row is AES-256-GCM under a key that lies beside the database, readable by its owner alone: a
copied or backed-up database tells nothing without it. The row's id is authenticated with the row,
so that rows cannot be exchanged.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.learning.examples import TrainingExample
from models.secret_file import open_secret
from schemas.clock import now_ms
from schemas.errors import DataInvalid

# What examples of one device are counted under; the server knows the device by its key.
OWNER = "device"
_NONCE_BYTES = 12
_SCHEMA = """
CREATE TABLE IF NOT EXISTS examples (
    example_id TEXT PRIMARY KEY, added_ms INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS sent (
    number INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, round_id TEXT NOT NULL,
    examples INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    seconds REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) STRICT;
"""


class Sent(msgspec.Struct, frozen=True):
    """One delta that left the device: its size and digest, and how many examples it came from."""

    number: int
    time_ms: int
    round_id: str
    examples: int
    bytes: int
    sha256: str
    seconds: float


class ExampleStore:
    """The files of one device, in `folder`. Not for several threads."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes the store. Raises DataInvalid for another file, SettingsInvalid for a key
        that others may read."""
        self._secret = open_secret(folder / "store.key", "key of the device's examples")
        self._cipher = AESGCM(self._secret)
        path = folder / "examples.db"
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        try:
            # What is removed is overwritten, not only forgotten.
            self._database.execute("PRAGMA secure_delete = ON")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise DataInvalid(f"{path} is no store: {error}.", "Name another folder.") from error

    def close(self) -> None:
        self._database.close()

    def add(self, example: TrainingExample) -> bool:
        """Keeps an example under an id made of its content; False for one that is here already."""
        content = msgspec.json.encode(msgspec.structs.replace(example, example_id="", user=OWNER))
        example_id = hmac.new(self._secret, content, hashlib.sha256).hexdigest()[:32]
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, content, example_id.encode())
        added = self._database.execute(
            "INSERT INTO examples VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (example_id, now_ms(), sealed),
        )
        return added.rowcount == 1

    def examples(self) -> list[TrainingExample]:
        """All examples, oldest first. Raises DataInvalid where the key is not theirs."""
        rows = self._database.execute(
            "SELECT example_id, sealed FROM examples ORDER BY added_ms, example_id"
        )
        return [self._opened(example_id, sealed) for example_id, sealed in rows]

    def count(self) -> int:
        """How many examples there are."""
        (count,) = self._database.execute("SELECT COUNT(*) FROM examples").fetchone()
        return int(count)

    def remove(self, example_id: str) -> bool:
        """Forgets an example; False for one that is not here."""
        gone = self._database.execute("DELETE FROM examples WHERE example_id = ?", (example_id,))
        return gone.rowcount == 1

    def positions(self, topic: str) -> dict[int, int]:
        """The next offset to read, by partition, of a topic that examples are taken from."""
        rows = self._database.execute(
            "SELECT partition, next_offset FROM positions WHERE topic = ?", (topic,)
        )
        return dict(rows.fetchall())

    def note_position(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything before `next_offset` is in the store. Call it after `add`."""
        self._database.execute(
            "INSERT INTO positions VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
            (topic, partition, next_offset),
        )

    def note_sent(self, round_id: str, examples: int, payload: bytes, seconds: float) -> None:
        """Writes down what is about to leave the device."""
        self._database.execute(
            "INSERT INTO sent (time_ms, round_id, examples, bytes, sha256, seconds)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                now_ms(),
                round_id,
                examples,
                len(payload),
                hashlib.sha256(payload).hexdigest(),
                seconds,
            ),
        )

    def sent(self, after: int = 0) -> list[Sent]:
        """What left the device, oldest first; entries with a number over `after`."""
        rows = self._database.execute(
            "SELECT number, time_ms, round_id, examples, bytes, sha256, seconds FROM sent"
            " WHERE number > ? ORDER BY number",
            (after,),
        )
        return [Sent(*row) for row in rows]

    def _opened(self, example_id: str, sealed: bytes) -> TrainingExample:
        try:
            content = self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], example_id.encode()
            )
        except InvalidTag as error:
            raise DataInvalid(
                f"Example {example_id} was not written with this device's key.",
                "Restore store.key from its backup, or begin with an empty folder.",
            ) from error
        found = msgspec.json.decode(content, type=TrainingExample)
        return msgspec.structs.replace(found, example_id=example_id)
