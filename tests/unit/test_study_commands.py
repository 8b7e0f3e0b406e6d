"""`headwater study`, on a study's file, and what starts the agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agents.studying.opening import _number, curriculum
from agents.studying.records import made_record, read_text
from agents.studying.settings import StudySettings
from infra.cli import cli
from infra.demo.general_texts import general_items, write_general_set
from models.studying.general import read_general_set
from models.studying.notes import FolderLock, Made, Notes, study_file, write_notes
from models.studying.reservoir import Reservoir
from models.studying.texts import Text
from schemas import codec
from schemas.errors import DataInvalid, EventInvalid, SettingsInvalid
from schemas.events import ModelUpdate
from schemas.topics import MODEL_UPDATES
from streams.records import Record


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two lessons."""
    monkeypatch.setenv("HEADWATER_STUDY_FOLDER", str(tmp_path))
    kept = Reservoir(4, seen=1, texts=[Text("p0", "d0", "a text")])
    notes = Notes({"rank": 8}, kept, {"0": 7}, lessons=2, studied=16, version_number=3)
    write_notes(study_file(tmp_path), notes, {})
    return tmp_path


def test_a_study_is_shown_and_forgotten(folder: Path) -> None:
    shown = CliRunner().invoke(cli, ["study", "show", "--json"])
    state = json.loads(shown.output)
    assert (state["lessons"], state["passages_studied"], state["offsets"]) == (2, 16, {"0": 7})
    assert "lessons: 2" in CliRunner().invoke(cli, ["study", "show"]).output
    again = CliRunner().invoke(cli, ["study", "rebuild"])
    assert "its next version is documents-4" in again.output
    state = json.loads(CliRunner().invoke(cli, ["study", "show", "--json"]).output)
    assert (state["lessons"], state["offsets"], state["rebuilding"]) == (0, {}, True)


def test_a_study_in_progress_is_not_forgotten(folder: Path) -> None:
    lock = FolderLock(folder)
    refused = CliRunner().invoke(cli, ["study", "rebuild"])
    lock.close()
    assert isinstance(refused.exception, SettingsInvalid)
    study_file(folder).unlink()
    for command in ("show", "rebuild"):
        missing = CliRunner().invoke(cli, ["study", command])
        assert isinstance(missing.exception, DataInvalid)


def test_a_version_is_told_the_same_however_often() -> None:
    made = Made("documents-3", "/versions/x", "0" * 64, "base", 5, {"fresh_loss": 2.0})
    update, record = made_record("documents", made, "file:///versions/x")
    assert made_record("documents", made, "file:///versions/x")[1].value == record.value
    event: ModelUpdate = codec.decode(MODEL_UPDATES, record.value or b"")
    assert event == update
    assert (event.origin, event.parent_version, event.privacy) == ("documents", "base", None)


def test_a_record_that_is_no_passage_is_refused() -> None:
    with pytest.raises(EventInvalid):
        read_text(Record("passages", 0, 0, b"p", b"{", [], 0))


@pytest.mark.parametrize(
    ("version", "number"), [("documents-7", 7), ("base", 0), ("documents-x", 0), ("tone-3", 0)]
)
def test_numbers_go_on_from_the_live_version(version: str, number: int) -> None:
    assert _number(version, "documents") == number


def test_the_general_set_is_the_same_each_time_and_has_texts_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    write_general_set(path)
    items = read_general_set(path)
    assert items == general_items()
    answers = sum(bool(item.answer) for item in items)
    assert (len(items), answers) == (200, 80)


def test_the_settings_make_the_curriculum() -> None:
    made = curriculum(StudySettings(rank=2, targets="q_proj, v_proj", passages_new=3))
    assert made.student.shape.targets == ("q_proj", "v_proj")
    assert (made.student.shape.scaling, made.new) == (2.0, 3)
