"""A learner killed a hundred times, at every boundary, ends where an undisturbed one does."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import learning_run
import pytest
from mortal import deaths
from tiny_model import build_tiny_model

from models.privacy.ledger import Round, Spent, verify
from models.privacy.ledger_store import LedgerStore

pytestmark = pytest.mark.long

KILLS = 100


def read(folder: Path) -> tuple[Spent, list[Round]]:
    store = LedgerStore(folder / "ledger.db")
    try:
        spent = verify(store.entries(learning_run.ADAPTER))
        rounds = store.rounds(learning_run.ADAPTER)
        assert store.unpublished(learning_run.ADAPTER) == []
    finally:
        store.close()
    return spent, rounds


def published(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "published").read_text().splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One undisturbed run and one that was killed over and over."""
    model = build_tiny_model(tmp_path_factory.mktemp("model"))
    undisturbed, killed = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("killed")
    assert deaths(learning_run, model, undisturbed, 0, timeout_s=240) == 0
    assert deaths(learning_run, model, killed, KILLS, timeout_s=240) == KILLS
    return undisturbed, killed


def test_the_killed_learner_ends_with_the_same_adapter(folders: tuple[Path, Path]) -> None:
    (spent, calm), (killed_spent, killed) = map(read, folders)
    assert spent.rounds == killed_spent.rounds == learning_run.ROUNDS
    assert [r.artifact_sha256 for r in killed] == [r.artifact_sha256 for r in calm]
    assert [(r.users, r.offsets, r.context) for r in killed] == [
        (r.users, r.offsets, r.context) for r in calm
    ]
    assert killed_spent.epsilon == spent.epsilon <= 8.0


def test_every_release_is_in_the_ledger_and_every_one_was_published(
    folders: tuple[Path, Path],
) -> None:
    _, folder = folders
    _, rounds = read(folder)
    released = [r.model_version for r in rounds if r.released]
    lines = published(folder)
    # A release may be published twice, never one that the ledger does not have.
    assert list(dict.fromkeys(line["version"] for line in lines)) == released
    assert len({(line["version"], line["digest"]) for line in lines}) == len(released)
    assert len(list((folder / "artifacts").iterdir())) >= len(rounds)


def test_no_example_is_used_twice_and_no_noise_is_drawn_twice(folders: tuple[Path, Path]) -> None:
    _, folder = folders
    _, rounds = read(folder)
    database = sqlite3.connect(folder / "ledger.db")
    used = [row[0] for row in database.execute("SELECT example_id FROM examples")]
    database.close()
    assert len(used) == len(set(used)) >= 3 * learning_run.ROUNDS
    # The noise of a round is a function of its number and this context.
    assert len({(r.number, r.context) for r in rounds}) == len(rounds)
