"""BM25 over passages' words, in memory, with tantivy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import tantivy

from models.retrieval.index import Hit
from models.retrieval.passages import (
    Metadata,
    StoredPassage,
    filter_terms,
    latest,
    passage_terms,
)

_ANALYZER: Final = "english"
_WRITER_HEAP_BYTES: Final = 15_000_000  # tantivy's minimum for one thread
_WORD_CHARS_MAX: Final = 80
# A prompt may paste a book: past this many distinct words a query only becomes slower.
_QUERY_WORDS_MAX: Final = 256


class KeywordIndex:
    """Words, stemmed as English; same contract as PassageIndex, but queries are texts.

    Scores are BM25 with tantivy's k1 = 1.2 and b = 0.75. Its statistics still count a deleted
    passage until the segment is merged, so scores may shift a little by themselves.
    """

    def __init__(self) -> None:
        self._analyzer = _analyzer()
        self._schema = _schema()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer(_ANALYZER, self._analyzer)
        self._writer = self._index.writer(_WRITER_HEAP_BYTES, num_threads=1)
        # Reloaded by hand in apply: tantivy's own watcher can delay a reader by 100 ms.
        self._index.config_reader("manual")
        self._searcher = self._index.searcher()
        self._write_lock = threading.Lock()

    def apply(self, upserts: Sequence[StoredPassage], deletes: Sequence[str]) -> None:
        """Delete, then upsert, visible to the next search; about 5 ms for 10 of 10,000."""
        passages = latest(upserts)
        with self._write_lock:
            for passage_id in {*deletes, *(passage.passage_id for passage in passages)}:
                self._writer.delete_documents_by_term("passage_id", passage_id)
            for passage in passages:
                self._writer.add_document(_tantivy_document(passage))
            self._writer.commit()
            self._index.reload()
            self._searcher = self._index.searcher()

    def search(self, texts: Sequence[str], top_k: int, filters: Metadata) -> list[list[Hit]]:
        """For each text at most top_k passages that share a word with it, best first."""
        searcher = self._searcher  # a snapshot: an apply meanwhile does not disturb it
        if top_k <= 0:
            return [[] for _ in texts]
        return [self._hits(searcher, self._query(text, filters), top_k) for text in texts]

    def __len__(self) -> int:
        return self._searcher.num_docs

    def close(self) -> None:
        with self._write_lock:
            self._writer.wait_merging_threads()

    def _query(self, text: str, filters: Metadata) -> tantivy.Query:
        """Built from terms, never parsed: a user's text has no syntax here."""
        encodable = text.encode("utf-8", "replace").decode()  # JSON may hold lone surrogates
        words = list(dict.fromkeys(self._analyzer.analyze(encodable)))[:_QUERY_WORDS_MAX]
        any_word = tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, self._term("text", word, "freq")) for word in words]
        )
        terms = [self._term("terms", term, "basic") for term in filter_terms(filters)]
        scoreless = [tantivy.Query.const_score_query(term, 0.0) for term in terms]
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Must, query) for query in (any_word, *scoreless)]
        )

    def _term(self, field: str, value: str, index_option: str) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, field, value, index_option)

    def _hits(self, searcher: tantivy.Searcher, query: tantivy.Query, top_k: int) -> list[Hit]:
        hits = searcher.search(query, top_k, count=False).hits
        return [Hit(searcher.doc(at)["passage_id"][0], float(score)) for score, at in hits]


def _analyzer() -> tantivy.TextAnalyzer:
    filters = [
        tantivy.Filter.remove_long(_WORD_CHARS_MAX),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stemmer("english"),
    ]
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in filters:
        builder = builder.filter(step)
    return builder.build()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("passage_id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("terms", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _tantivy_document(passage: StoredPassage) -> tantivy.Document:
    texts = [passage.title, passage.text] if passage.title else [passage.text]
    return tantivy.Document(passage_id=passage.passage_id, terms=passage_terms(passage), text=texts)
