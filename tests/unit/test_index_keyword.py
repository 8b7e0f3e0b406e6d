"""BM25 by example, and against a brute-force search for shared words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.retrieval.keyword_index import KeywordIndex
from models.retrieval.passages import StoredPassage

NO_VECTOR = np.zeros(0, dtype=np.float32)


def passage(
    passage_id: str, text: str, title: str | None = None, **metadata: str | int | float | bool
) -> StoredPassage:
    return StoredPassage(passage_id, "d", text, title, None, metadata, NO_VECTOR)


def index_of(*passages: StoredPassage) -> KeywordIndex:
    index = KeywordIndex()
    index.apply(passages, [])
    return index


def ids(index: KeywordIndex, text: str, top_k: int = 10, **filters: str | int) -> list[str]:
    (hits,) = index.search([text], top_k, filters)
    return [hit.passage_id for hit in hits]


def test_words_match_by_their_stem_whatever_their_case_and_accents() -> None:
    index = index_of(passage("p", "The café RIVERS were flowing."))
    for query in ("river", "Flow", "cafe", "CAFÉS"):
        assert ids(index, query) == ["p"]
    assert ids(index, "mountain") == []


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    common = [passage(f"c{n}", f"water number {n}") for n in range(20)]
    index = index_of(*common, passage("rare", "about turbines"), passage("both", "water turbines"))
    assert ids(index, "water turbines", top_k=2) == ["both", "rare"]


def test_a_title_is_searched_too() -> None:
    assert ids(index_of(passage("p", "It opened in 1894.", title="Tower Bridge")), "bridge") == [
        "p"
    ]


def test_upserts_replace_and_deletes_remove() -> None:
    index = index_of(passage("p", "old words"), passage("q", "other words"))
    index.apply([passage("p", "new words")], ["q", "never there"])
    assert len(index) == 1
    assert ids(index, "old other") == []
    assert ids(index, "words") == ["p"]


def test_filters_limit_without_changing_scores() -> None:
    index = index_of(passage("en", "tea time", lang="en"), passage("de", "tea time", lang="de"))
    ((free, _), (filtered,)) = (
        index.search(["tea"], 2, {})[0],
        index.search(["tea"], 2, {"lang": "de"})[0],
    )
    assert filtered.passage_id == "de"
    assert filtered.score == pytest.approx(free.score)
    assert ids(index, "tea", lang="fr") == []


@pytest.mark.parametrize(
    "text",
    [
        'foo:"(bar AND',
        "NOT *",
        "a^-1 OR +~ [x TO",
        "",
        "   ",
        "\x00\ufffe",
        "\ud800 tea",
        "?!" * 1000,
        "tea " * 20_000,
    ],
)
def test_any_text_is_a_query(text: str) -> None:
    index = index_of(passage("p", "tea bar"))
    assert ids(index, text) in ([], ["p"])


def test_query_words_are_words_and_no_operators() -> None:
    index = index_of(passage("p", "tea"), passage("q", "not"))
    assert sorted(ids(index, "NOT tea")) == ["p", "q"]


words = st.sampled_from(["alpha", "beta", "gamma", "delta"])
texts = st.lists(words, max_size=3)
names = st.sampled_from(["p0", "p1", "p2", "p3"])
steps = st.lists(
    st.tuples(st.lists(st.tuples(names, texts), max_size=3), st.lists(names, max_size=2), texts),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_any_history_finds_exactly_the_passages_that_share_a_word(
    steps: Sequence[tuple[list[tuple[str, list[str]]], list[str], list[str]]],
) -> None:
    index, stored = KeywordIndex(), dict[str, set[str]]()
    for written, deletes, query in steps:
        index.apply([passage(name, " ".join(text)) for name, text in written], deletes)
        for name in deletes:
            stored.pop(name, None)
        stored |= {name: set(text) for name, text in written}

        (hits,) = index.search([" ".join(query)], 10, {})
        expected = {name for name, text in stored.items() if text & set(query)}
        assert {hit.passage_id for hit in hits} == expected
        assert len(hits) == len(expected) and len(index) == len(stored)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
    index.close()
