"""The tables of the ledger's database, by adapter, and what is read back from them."""

from __future__ import annotations

from dataclasses import dataclass

from models.privacy.ledger import Opening, Round
from models.privacy.noise import Tensors
from models.privacy.participation import Taken

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    adapter TEXT, position INTEGER, body BLOB NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (adapter, position)) STRICT;
CREATE TRIGGER IF NOT EXISTS ledger_keeps_entries BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS ledger_keeps_all BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE IF NOT EXISTS states (
    adapter TEXT PRIMARY KEY, rounds INTEGER NOT NULL, tensors BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS participation (
    adapter TEXT, user TEXT, count INTEGER NOT NULL, last_round INTEGER NOT NULL,
    PRIMARY KEY (adapter, user)) STRICT;
CREATE TABLE IF NOT EXISTS examples (
    adapter TEXT, example_id TEXT, round INTEGER NOT NULL,
    PRIMARY KEY (adapter, example_id)) STRICT;
CREATE TABLE IF NOT EXISTS offsets (
    adapter TEXT, source TEXT, next INTEGER NOT NULL, PRIMARY KEY (adapter, source)) STRICT;
CREATE TABLE IF NOT EXISTS releases (
    adapter TEXT, model_version TEXT, round INTEGER NOT NULL, published INTEGER NOT NULL,
    PRIMARY KEY (adapter, model_version)) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where an adapter stands."""

    opening: Opening
    rounds: int
    state: Tensors
    taken: dict[str, Taken]
    offsets: dict[str, int]


@dataclass(frozen=True, slots=True)
class Release:
    """A round that is to go live, and the ledger's digest with it."""

    record: Round
    digest: str
