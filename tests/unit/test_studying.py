"""Studying passages: packing, replay, lessons that a restart does not change, the gate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_model import build_tiny_model

from models.engine.load import Loaded, load
from models.learning.gate import LiveVersion
from models.learning.lora import LoraShape
from models.learning.optimizers import OptimizerSettings
from models.studying.curriculum import Curriculum
from models.studying.general import GeneralItem, read_general_set
from models.studying.notes import begin_again, read_notes, study_file
from models.studying.reservoir import Reservoir
from models.studying.student import StudentSettings
from models.studying.study import Study
from models.studying.texts import Text, encode_texts, pack, separator
from schemas.errors import DataInvalid, SettingsInvalid

GENERAL = [
    *(GeneralItem(text=f"a general text about matter {n} and what it means") for n in range(9)),
    GeneralItem(messages=({"role": "user", "content": "how deep"},), answer="nine metres"),
    GeneralItem(messages=({"role": "user", "content": "how wide"},), answer="ninety metres"),
]
SHAPE = LoraShape(2, 4.0, ("q_proj", "v_proj"))
CURRICULUM = Curriculum(StudentSettings(SHAPE, OptimizerSettings("adam", 1e-2)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = build_tiny_model(tmp_path_factory.mktemp("model"))
    return load(str(folder), folder, "cpu", "float32")


def a_study(loaded: Loaded, folder: Path, **changes: object) -> Study:
    student = StudentSettings(SHAPE, OptimizerSettings("adam", 1e-2))
    settings = {
        "student": student,
        "new": 2,
        "old": 2,
        "general": 2,
        "reservoir": 4,
        "row_tokens": 32,
    }
    curriculum = Curriculum(**(settings | changes))  # type: ignore[arg-type]
    return Study(loaded, curriculum, GENERAL, folder, "documents", "tiny")


def a_text(number: int) -> Text:
    return Text(f"p{number}", f"d{number}", f"the river carries document {number} down to the sea")


def studied(study: Study, first: int, last: int) -> list[float]:
    """Losses of the lessons on texts `first` to `last`, each saved."""
    losses = []
    for number in range(first, last):
        study.read(a_text(number))
        if study.due:
            losses.append(study.lesson())
            study.save()
    return losses


# Packing


def test_packed_rows_lose_no_token_and_predict_each_once() -> None:
    texts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    rows = pack(texts, 0, row_tokens=4)
    assert [(row.prompt, row.answer) for row in rows] == [
        ([0], [1, 2, 3]),
        ([3], [0, 4, 0]),
        ([0], [5, 6, 7]),
        ([7], [8, 9]),
    ]
    assert pack([], 0, 4) == []


def test_what_spells_a_control_token_stays_text(loaded: Loaded) -> None:
    between = separator(loaded.tokenizer)
    (tokens,) = encode_texts(loaded.tokenizer, ["a<|endoftext|>b"], 100)
    assert between not in tokens
    assert loaded.tokenizer.decode(tokens) == "a<|endoftext|>b"
    assert len(encode_texts(loaded.tokenizer, ["river " * 50], 7)[0]) == 7


# Replay


def test_early_and_late_texts_have_the_same_chance_to_be_kept() -> None:
    reservoir = Reservoir(200)
    for number in range(2_000):
        reservoir.offer(Text(str(number), "", ""))
    early = sum(int(text.text_id) < 1_000 for text in reservoir.texts)
    # 100 on average, with a standard deviation of 6.7.
    assert len(reservoir.texts) == 200
    assert 75 <= early <= 125
    drawn = Counter(text.text_id for text in reservoir.draw(2_000))
    assert max(drawn.values()) <= 30


def test_the_reservoir_forgets_what_is_deleted_and_replaces_what_is_new() -> None:
    reservoir = Reservoir(3)
    for number in range(3):
        reservoir.offer(a_text(number))
    reservoir.forget("p1")
    assert {text.text_id for text in reservoir.texts} == {"p0", "p2"}
    reservoir.offer(Text("p0", "d0", "another text"))
    assert [text.text for text in reservoir.texts if text.text_id == "p0"] == ["another text"]
    assert {text.text_id for text in reservoir.draw(20)} == {"p0", "p2"}
    assert Reservoir(3).draw(2) == []


# Lessons


def test_lessons_teach_what_they_are_about(loaded: Loaded, tmp_path: Path) -> None:
    eager = StudentSettings(SHAPE, OptimizerSettings("adam", 5e-2))
    study = a_study(loaded, tmp_path, student=eager, held_out_of=0, general=0)
    losses = studied(study, 0, 24)
    study.close()
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5


def test_a_restart_between_lessons_changes_nothing(loaded: Loaded, tmp_path: Path) -> None:
    straight = a_study(loaded, tmp_path / "straight")
    studied(straight, 0, 20)
    broken = a_study(loaded, tmp_path / "broken")
    studied(broken, 0, 9)
    broken.save()
    # Not saved: as if the process had been killed.
    broken.read(a_text(99))
    broken.lesson()
    broken.close()
    resumed = a_study(loaded, tmp_path / "broken")
    studied(resumed, 9, 20)
    assert resumed.notes == straight.notes
    theirs = straight.student.state()
    assert all(torch.equal(t, theirs[name]) for name, t in resumed.student.state().items())
    straight.close()
    resumed.close()


def test_a_deleted_text_is_not_studied_and_a_new_state_replaces_an_old_one(
    loaded: Loaded, tmp_path: Path
) -> None:
    study = a_study(loaded, tmp_path, held_out_of=0)
    study.read(a_text(0))
    assert study.forget("p0")
    assert not study.forget("p0")
    study.read(a_text(1))
    study.read(Text("p1", "d1", "what it says now"))
    assert [text.text for text in study.notes.waiting] == ["what it says now"]
    study.close()


def test_other_settings_are_refused_and_a_rebuild_begins_with_them(
    loaded: Loaded, tmp_path: Path
) -> None:
    study = a_study(loaded, tmp_path)
    study.notes.version_number = 4
    studied(study, 0, 8)
    with pytest.raises(SettingsInvalid, match="Another process studies"):
        begin_again(tmp_path)
    study.close()
    student = StudentSettings(SHAPE, OptimizerSettings("adam", 1e-3))
    with pytest.raises(SettingsInvalid, match="began with"):
        a_study(loaded, tmp_path, student=student)
    begin_again(tmp_path)
    again = a_study(loaded, tmp_path, student=student)
    assert again.notes.offsets == {}
    assert again.notes.lessons == 0
    assert again.notes.version_number == 4
    assert not again.notes.rebuilt
    again.close()


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    assert read_notes(study_file(tmp_path)) is None
    study_file(tmp_path).write_bytes(b"nothing")
    with pytest.raises(DataInvalid, match="holds no study"):
        read_notes(study_file(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no text"),
        ("{}", "Line 1 .* no text and no answer"),
        ('{"text": "a"}\n{"text": "a", "answer": 3}', "Line 2 "),
        ('{"messages": [], "answer": "b"}', "Line 1 .* no text and no answer"),
    ],
)
def test_a_general_set_that_says_nothing_is_refused(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "general.jsonl"
    with pytest.raises(DataInvalid, match="cannot be read"):
        read_general_set(path)
    path.write_text(content)
    with pytest.raises(DataInvalid, match=reason):
        read_general_set(path)


# The gate


def fresh_numbers(count: int) -> list[int]:
    """Texts whose documents are held out."""
    held_out = [n for n in range(400) if CURRICULUM.holds_out(f"d{n}")]
    return held_out[:count]


def test_what_is_better_on_fresh_passages_goes_live_once(loaded: Loaded, tmp_path: Path) -> None:
    base = LiveVersion("base", {}, SHAPE)
    study = a_study(loaded, tmp_path, tolerance=10.0)
    for number in fresh_numbers(5):
        study.read(a_text(number))
    studied(study, 0, 30)
    judgement = study.release(lambda: base)
    assert judgement.released
    assert judgement.evaluation["fresh_loss"] < judgement.evaluation["fresh_loss_live"]
    assert {"general_loss", "chat_loss_base"} < judgement.evaluation.keys()
    made = study.notes.made
    assert made is not None
    assert (made.version, made.parent) == ("documents-1", "base")
    live = LiveVersion(made.version, dict(study.student.adapter), SHAPE)
    # Nothing was studied since: not better than itself.
    assert not study.release(lambda: live).released
    # What is live cannot be read.
    assert study.release(lambda: None).evaluation == {}
    study.close()


def test_what_is_worse_in_general_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    study = a_study(loaded, tmp_path, tolerance=-10.0)
    for number in fresh_numbers(5):
        study.read(a_text(number))
    studied(study, 0, 30)
    assert not study.release(lambda: LiveVersion("base", {}, SHAPE)).released
    assert study.notes.made is None
    study.close()


def test_a_rebuild_is_measured_by_the_base_alone(loaded: Loaded, tmp_path: Path) -> None:
    study = a_study(loaded, tmp_path, tolerance=10.0)
    for number in fresh_numbers(5):
        study.read(a_text(number))
    studied(study, 0, 30)
    study.notes.rebuilt = False
    judgement = study.release(lambda: None)
    assert judgement.released
    assert study.notes.rebuilt
    assert study.notes.made is not None
    assert study.notes.made.parent == "base"
    study.close()
