"""Reading question-answering data, and scoring rankings against it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.evaluation.retrieval import by_document, score
from infra.evaluation.squad import Squad, read_squad
from schemas.errors import EventInvalid
from schemas.events import Document

FILE = {
    "version": "1.1",
    "data": [
        {
            "title": "Water",
            "paragraphs": [
                {
                    "context": "Water boils at 100 degrees.",
                    "qas": [
                        {"id": "1", "question": "When does water boil?", "answers": []},
                        {"id": "2", "question": "What boils at 100 degrees?"},
                    ],
                },
                {"context": "Ice melts at 0 degrees.", "qas": []},
            ],
        },
        {"paragraphs": [{"context": "Rivers end.", "qas": [{"question": "Where?"}]}]},
    ],
}
SQUAD = Squad([], [("q1", "a"), ("q2", "b"), ("q3", "c"), ("q4", "d")])


def test_paragraphs_become_documents_and_questions_point_at_them(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(FILE))
    assert read_squad(path) == Squad(
        [
            Document("Water boils at 100 degrees.", "0/Water/0", title="Water"),
            Document("Ice melts at 0 degrees.", "0/Water/1", title="Water"),
            Document("Rivers end.", "1//0"),
        ],
        [
            ("When does water boil?", "0/Water/0"),
            ("What boils at 100 degrees?", "0/Water/0"),
            ("Where?", "1//0"),
        ],
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"data": [{"paragraphs": [{}]}]}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(EventInvalid, match=r"other\.json is no SQuAD file"):
        read_squad(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EventInvalid, match="absent"):
        read_squad(tmp_path / "absent.json")


def test_scores_count_ranks() -> None:
    first, second, sixth, never = ["a"], ["x", "b"], [*"12345", "c"], ["x"]
    assert score([first, second, sixth, never], SQUAD) == {
        "recall@1": 1 / 4,
        "recall@5": 2 / 4,
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 6) / 4),
    }


def test_a_ranking_for_each_question_is_needed() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        score([["a"]], SQUAD)


def test_a_document_ranks_by_its_best_passage() -> None:
    assert by_document(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
