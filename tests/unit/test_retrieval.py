"""The retriever by example, on small hand-made vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.retrieval.faiss_index import FaissIndex
from models.retrieval.fusion import DENSE_WEIGHT, fused_scores
from models.retrieval.passages import StoredPassage
from models.retrieval.retriever import Found, Mode, Retriever
from schemas.errors import IndexUnavailable

EAST = np.array([[1.0, 0.0]], dtype=np.float32)


def at(degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.array([np.cos(radians), np.sin(radians)], dtype=np.float32)


def passage(passage_id: str, degrees: float, text: str, **metadata: str) -> StoredPassage:
    return StoredPassage(passage_id, f"doc-{passage_id}", text, None, None, metadata, at(degrees))


NEAR = passage("near", 10, "a brook", lang="en")
WORDS = passage("words", 60, "the turbine hall", lang="en")
FAR = passage("far", 120, "unrelated", lang="de")


@pytest.fixture
def retriever() -> Iterator[Retriever]:
    built = Retriever(FaissIndex(2))
    built.apply([NEAR, WORDS, FAR], [])
    yield built
    built.close()


def ask(retriever: Retriever, text: str = "turbine", **options: object) -> list[Found]:
    (found,) = retriever.search([text], EAST, **{"top_k": 3, **options})  # type: ignore[arg-type]
    return found


def ids(found: list[Found]) -> list[str]:
    return [f.passage.passage_id for f in found]


def test_dense_orders_by_cosine(retriever: Retriever) -> None:
    found = ask(retriever, mode="dense")
    assert ids(found) == ["near", "words", "far"]
    assert found[0].score == found[0].dense_score == pytest.approx(np.cos(np.deg2rad(10)))


def test_keyword_orders_by_shared_words_and_tells_the_cosine_too(retriever: Retriever) -> None:
    (found,) = ask(retriever, mode="keyword")
    assert found.passage is WORDS
    assert found.score == found.keyword_score > 0
    assert found.dense_score == pytest.approx(np.cos(np.deg2rad(60)), abs=1e-6)


def test_fused_weighs_both(retriever: Retriever) -> None:
    assert ids(ask(retriever)) == ["near", "words", "far"]  # .7 * .98 > .7 * .5 + .3
    retriever.apply([passage("words", 40, "the turbine hall")], [])
    assert ids(ask(retriever)) == ["words", "near", "far"]  # .7 * .77 + .3 is more


def test_fused_scores_lie_below_one_and_are_dense_where_no_word_is_shared() -> None:
    cosines = np.array([1.0, 0.5])
    assert fused_scores(cosines, np.array([3.0, 6.0])) == pytest.approx([0.85, 0.65])
    assert fused_scores(cosines, np.zeros(2)) == pytest.approx(DENSE_WEIGHT * cosines)
    assert fused_scores(np.zeros(0), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("mode", ["fused", "dense", "keyword"])
def test_the_floor_is_a_cosine_in_every_mode(retriever: Retriever, mode: Mode) -> None:
    assert all(f.dense_score >= 0.4 for f in ask(retriever, mode=mode, score_floor=0.4))
    assert "words" in ids(ask(retriever, mode=mode, score_floor=0.4))
    assert "words" not in ids(ask(retriever, mode=mode, score_floor=0.6))
    assert "far" not in ids(ask(retriever, "unrelated", mode=mode, score_floor=0.0))


@pytest.mark.parametrize("mode", ["fused", "dense", "keyword"])
def test_filters_hold_in_every_mode(retriever: Retriever, mode: Mode) -> None:
    found = ask(retriever, "brook turbine unrelated", mode=mode, filters={"lang": "de"})
    assert ids(found) == ["far"]
    assert ids(ask(retriever, "brook", mode=mode, filters={"document_id": "doc-near"})) == ["near"]


def test_several_queries_at_once_answer_in_order(retriever: Retriever) -> None:
    vectors = np.stack([at(120), at(10)])
    answers = retriever.search(["unrelated", "brook"], vectors, top_k=1)
    assert [ids(found) for found in answers] == [["far"], ["near"]]


def test_an_edited_passage_shows_its_new_text_and_a_deleted_one_nothing(
    retriever: Retriever,
) -> None:
    retriever.apply([passage("words", 60, "a wind mill")], ["near", "never there"])
    assert len(retriever) == 2
    assert ids(ask(retriever, "turbine", mode="keyword")) == []
    assert ids(ask(retriever, "wind", mode="fused")) == ["words", "far"]
    assert ask(retriever, "wind")[0].passage.text == "a wind mill"


def test_a_passage_deleted_and_published_at_once_stays(retriever: Retriever) -> None:
    retriever.apply([NEAR], ["near"])
    assert len(retriever) == 3
    assert ids(ask(retriever, mode="dense", top_k=1)) == ["near"]


def test_a_refused_batch_changes_nothing(retriever: Retriever) -> None:
    wide = StoredPassage("wide", "d", "turbine", None, None, {}, np.ones(3, dtype=np.float32))
    with pytest.raises(IndexUnavailable):
        retriever.apply([wide], ["words"])
    assert ids(ask(retriever, mode="keyword")) == ["words"]
    assert len(retriever) == 3


def test_a_search_during_applies_never_sees_a_passage_without_its_text(
    retriever: Retriever,
) -> None:
    done = threading.Event()

    def searches() -> list[list[Found]]:
        answers = []
        while not done.is_set():
            answers.append(ask(retriever, "turbine coming", top_k=10))
        return answers

    with ThreadPoolExecutor() as pool:
        running = pool.submit(searches)
        for n in range(30):
            retriever.apply([passage(f"p{n}", n, f"coming {n}")], [f"p{n - 2}"])
        done.set()
    assert running.result()
    for answer in running.result():
        assert {"near", "words", "far"} <= set(ids(answer))
        assert len(set(ids(answer))) == len(answer) <= 6
    assert {"p28", "p29"} < set(ids(ask(retriever, top_k=10)))
