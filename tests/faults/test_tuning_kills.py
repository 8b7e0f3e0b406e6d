"""A tuning killed over and over, at every boundary, ends where an undisturbed one does."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import tuning_run
from learning_agents import QUESTIONS
from mortal import deaths
from tiny_model import build_tiny_model

from agents.tuning.rules import tuning_folder
from infra.tuning_report import tuning_reports
from models.privacy.ledger import Round, verify
from models.privacy.ledger_store import LedgerStore

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

KILLS = 40


def read(folder: Path) -> dict[str, list[Round]]:
    path = tuning_folder(tuning_run.settings_of(folder), tuning_run.NAME) / "ledger.db"
    with closing(LedgerStore(path, read_only=True)) as store:
        for name in store.adapters():
            verify(store.entries(name))
            assert store.unpublished(name) == []
        return {name: store.rounds(name) for name in store.adapters()}


def test_weights_rungs_and_offsets_are_those_of_an_undisturbed_tuning(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder, kills in zip(folders, (0, KILLS), strict=True):
        folder.mkdir()
        # Before the keys are made by chance: equal noise, so that equal weights can be told.
        keys = tuning_folder(tuning_run.settings_of(folder), tuning_run.NAME)
        keys.mkdir(parents=True)
        for number in range(len(tuning_run.RULES.candidates)):
            key = keys / f"{tuning_run.NAME}.{number}.noise-key"
            key.touch(mode=0o600)
            key.write_bytes(bytes([number]) * 32)
        (folder / "gate.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
        assert deaths(tuning_run, model, folder, kills, timeout_s=280) == kills
    calm, killed = map(read, folders)
    assert calm.keys() == killed.keys() and len(calm) == len(tuning_run.RULES.candidates)
    for name, rounds in calm.items():
        again = killed[name]
        assert [r.artifact_sha256 for r in again] == [r.artifact_sha256 for r in rounds]
        assert [(r.users, r.offsets, r.context, r.evaluation) for r in again] == [
            (r.users, r.offsets, r.context, r.evaluation) for r in rounds
        ]
    # Some went out early, and one stayed to the end.
    lengths = {len(rounds) for rounds in killed.values()}
    assert len(lengths) > 1
    (report,) = tuning_reports(tuning_run.settings_of(folders[1]))
    assert report.epsilon_spent is not None and report.epsilon_spent <= 8.0 + 1e-6
