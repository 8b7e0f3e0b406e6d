"""The suite that every PassageIndex passes: each equals a brute-force search in numpy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.retrieval.faiss_index import FaissIndex
from models.retrieval.index import PassageIndex
from models.retrieval.passages import Metadata, StoredPassage, filter_terms, passage_terms
from models.retrieval.qdrant_edge import QdrantEdgeIndex
from models.retrieval.qdrant_index import QdrantIndex
from models.retrieval.retriever import Retriever
from schemas.errors import IndexUnavailable

DIM = 8
# The client's in-memory mode says at each start what a server would do better.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes", "ignore:Local mode")

MakeIndex = Callable[[], PassageIndex]


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector))


def passage(
    passage_id: str, seed: int = 0, document_id: str = "d", **metadata: str | int | float | bool
) -> StoredPassage:
    return StoredPassage(passage_id, document_id, "text", None, None, metadata, unit(seed))


def ids(index: PassageIndex, query: np.ndarray, top_k: int = 10, **filters: object) -> list[str]:
    (hits,) = index.search(query[None], top_k, filters)  # type: ignore[arg-type]
    return [hit.passage_id for hit in hits]


@pytest.fixture(params=["faiss", "qdrant-edge", "qdrant-client"])
def make_index(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeIndex]:
    opened: list[PassageIndex] = []

    def make() -> PassageIndex:
        index: PassageIndex
        if request.param == "faiss":
            index = FaissIndex(DIM)
        elif request.param == "qdrant-edge":
            index = QdrantEdgeIndex(tmp_path_factory.mktemp("points"), DIM)
        else:
            index = QdrantIndex(":memory:", DIM, exact=True)
        opened.append(index)
        return index

    yield make
    for index in opened:
        index.close()


def test_the_nearest_come_first_with_their_inner_product(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage(f"p{seed}", seed) for seed in range(20)], [])
    (hits,) = index.search(unit(7)[None], 3, {})
    assert hits[0].passage_id == "p7"
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert len(hits) == 3 and hits[0].score >= hits[1].score >= hits[2].score


def test_every_query_of_a_batch_has_its_own_answer(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage(f"p{seed}", seed) for seed in range(5)], [])
    answers = index.search(np.stack([unit(3), unit(1)]), 1, {})
    assert [[hit.passage_id for hit in hits] for hits in answers] == [["p3"], ["p1"]]


def test_an_upsert_replaces_the_vector_and_the_metadata(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage("p", 1, lang="en"), passage("q", 2)], [])
    index.apply([passage("p", 3, lang="de")], [])
    assert len(index) == 2
    assert ids(index, unit(3), top_k=1) == ["p"]
    assert ids(index, unit(3), lang="en") == []
    assert ids(index, unit(3), lang="de") == ["p"]


def test_the_last_of_two_versions_in_a_batch_wins(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage("p", 1, version=1), passage("p", 2, version=2)], [])
    assert len(index) == 1
    assert ids(index, unit(1), version=1) == []


def test_a_deleted_passage_is_gone_and_an_absent_one_no_error(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage("p", 1), passage("q", 2)], [])
    index.apply([], ["p", "never there"])
    assert len(index) == 1
    assert ids(index, unit(1)) == ["q"]


def test_an_id_deleted_and_upserted_at_once_is_there(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage("p", 1)], ["p"])
    index.apply([passage("p", 2)], ["p"])
    assert ids(index, unit(2)) == ["p"]


def test_all_filters_must_match(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply(
        [
            passage("a", 1, document_id="x", lang="en", year=2020),
            passage("b", 2, document_id="y", lang="en", year=2021),
            passage("c", 3, document_id="y", lang="de", year=2021),
        ],
        [],
    )
    assert sorted(ids(index, unit(1), lang="en")) == ["a", "b"]
    assert ids(index, unit(1), lang="en", year=2021) == ["b"]
    assert sorted(ids(index, unit(1), document_id="y")) == ["b", "c"]
    assert ids(index, unit(1), lang="fr") == []


def test_a_filter_tells_types_apart_but_not_one_from_one_point_zero(make_index: MakeIndex) -> None:
    index = make_index()
    kinds: dict[str, str | int | float | bool] = {"s": "1", "i": 1, "b": True, "f": 0.5}
    index.apply([passage(name, 1, value=value) for name, value in kinds.items()], [])
    assert [ids(index, unit(1), value=value) for value in kinds.values()] == [[k] for k in kinds]
    assert ids(index, unit(1), value=1.0) == ["i"]


def test_metadata_cannot_pose_as_another_document(make_index: MakeIndex) -> None:
    index = make_index()
    forged = StoredPassage("p", "mine", "t", None, None, {"document_id": "yours"}, unit(1))
    index.apply([forged], [])
    assert ids(index, unit(1), document_id="yours") == []
    assert ids(index, unit(1), document_id="mine") == ["p"]


def test_asking_for_more_than_there_is_gives_what_there_is(make_index: MakeIndex) -> None:
    index = make_index()
    assert ids(index, unit(1)) == []
    index.apply([passage("p", 1)], [])
    assert ids(index, unit(1), top_k=50) == ["p"]
    assert ids(index, unit(1), top_k=0) == []


def test_another_dimension_is_refused_without_a_change(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage("p", 1)], [])
    wide = StoredPassage("w", "d", "t", None, None, {}, np.ones(DIM + 1, dtype=np.float32))
    with pytest.raises(IndexUnavailable, match="dimensions"):
        index.apply([passage("q", 2), wide], ["p"])
    assert ids(index, unit(1)) == ["p"]


def test_retain_leaves_nothing_but_what_is_named(make_index: MakeIndex) -> None:
    index = make_index()
    index.apply([passage(f"p{seed}", seed) for seed in range(5)], [])
    index.retain({"p1": 0, "p3": 0, "never there": 0})
    assert len(index) == 2
    assert sorted(ids(index, unit(1))) == ["p1", "p3"]
    index.retain({})
    assert ids(index, unit(1)) == []


def test_what_retain_calls_held_is_stored_in_that_state_or_a_newer_one(
    make_index: MakeIndex,
) -> None:
    index = make_index()
    stored = [replace(passage(name, 1), written_ms=ms) for name, ms in [("old", 1), ("new", 3)]]
    index.apply([*stored, replace(passage("same", 1), written_ms=2)], [])
    # An index in memory may call nothing held: it is empty whenever this matters.
    assert index.retain({"old": 2, "same": 2, "new": 2, "absent": 2}) <= {"same", "new"}


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns every microsecond, so that a race has its chance."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("hasty_threads")
def test_searches_run_beside_applies(make_index: MakeIndex) -> None:
    index = make_index()
    if isinstance(index, QdrantIndex):
        pytest.skip("the client's in-memory mode is for one thread; a server is not")
    twins = [passage(f"twin{n}", 1) for n in range(500)]  # always among what is found
    index.apply([passage("stays", 1, kept=True), *twins], [])
    done = threading.Event()

    def searches() -> list[int]:
        found = []
        while not done.is_set():
            found.append(len(ids(index, unit(1), top_k=1_000)))
            assert ids(index, unit(1), kept=True) == ["stays"]
        return found

    with ThreadPoolExecutor() as pool:
        running = pool.submit(searches)
        for twin in twins[:200]:
            index.apply([], [twin.passage_id])
            index.apply([twin], [])
        done.set()
    assert running.result() and set(running.result()) <= {500, 501}


names = st.sampled_from([f"p{n}" for n in range(6)])
colours = st.sampled_from(["red", "blue"])
upserts = st.lists(st.tuples(names, st.integers(0, 9), colours), max_size=4)
queries = st.tuples(st.integers(0, 9), st.integers(0, 7), st.none() | colours)
steps = st.lists(st.tuples(upserts, st.lists(names, max_size=3), queries), max_size=8)


def oracle(
    stored: dict[str, StoredPassage], query: np.ndarray, filters: Metadata
) -> dict[str, float]:
    wanted = set(filter_terms(filters))
    matching = [p for p in stored.values() if wanted <= set(passage_terms(p))]
    return {p.passage_id: float(query @ p.embedding) for p in matching}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_any_history_equals_brute_force(
    make_index: MakeIndex,
    steps: Sequence[tuple[list[tuple[str, int, str]], list[str], tuple[int, int, str | None]]],
) -> None:
    index, stored = make_index(), dict[str, StoredPassage]()
    for written, deletes, (query_seed, top_k, colour) in steps:
        batch = [passage(name, seed, colour=c) for name, seed, c in written]
        index.apply(batch, deletes)
        for name in deletes:
            stored.pop(name, None)
        stored |= {p.passage_id: p for p in batch}

        filters: Metadata = {"colour": colour} if colour else {}
        (hits,) = index.search(unit(query_seed)[None], top_k, filters)
        expected = oracle(stored, unit(query_seed), filters)
        best = sorted(expected.values(), reverse=True)[:top_k]
        assert len(index) == len(stored)
        assert len({hit.passage_id for hit in hits}) == len(best)
        # Equal scores may come in any order, so scores are compared by place and by id.
        np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)
        for hit in hits:
            assert hit.score == pytest.approx(expected[hit.passage_id], abs=1e-5)


def test_points_in_a_folder_survive_a_restart(tmp_path: Path) -> None:
    first = QdrantEdgeIndex(tmp_path, DIM)
    first.apply([passage("p", 1), passage("q", 2)], [])
    first.apply([], ["q"])
    first.close()
    second = QdrantEdgeIndex(tmp_path, DIM)
    assert ids(second, unit(1)) == ["p"]
    second.close()


@pytest.fixture(params=["folder", "collection"])
def kept_index(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], PassageIndex]:
    """Opens the index that keeps what its earlier lives, or other replicas, have stored."""
    if request.param == "folder":
        return lambda: QdrantEdgeIndex(tmp_path, DIM)
    collection = QdrantIndex(":memory:", DIM, exact=True)
    return lambda: collection


def test_what_the_topic_forgot_meanwhile_takes_no_place_among_the_hits(
    kept_index: Callable[[], PassageIndex],
) -> None:
    """The tombstones of a stopped replica were compacted away before it came back."""
    first = kept_index()
    kept = [replace(passage(f"kept{n}", n), written_ms=n) for n in range(3)]
    first.apply([*kept, *(passage(f"gone{n}", 1) for n in range(3_000))], [])
    if isinstance(first, QdrantEdgeIndex):
        first.close()
    second = Retriever(kept_index())
    held = second.retain({"kept0": 0, "kept1": 9, "kept2": 2})
    assert held == {"kept0", "kept2"}
    second.apply([kept[0], replace(passage("kept1", 5), written_ms=9), kept[2]], [], held)
    (found,) = second.search(["text"], unit(5)[None], 3, mode="dense")
    assert [hit.passage.passage_id for hit in found][:1] == ["kept1"]
    assert {hit.passage.passage_id for hit in found} == {"kept0", "kept1", "kept2"}
    second.close()


def test_a_folder_of_another_dimension_is_refused(tmp_path: Path) -> None:
    QdrantEdgeIndex(tmp_path, DIM).close()
    with pytest.raises(IndexUnavailable, match="embedder"):
        QdrantEdgeIndex(tmp_path, DIM * 2)


def test_an_absent_server_is_named_in_the_error() -> None:
    with pytest.raises(IndexUnavailable, match=r"localhost:9 .*URL"):
        QdrantIndex("http://localhost:9", DIM)
