"""A real worker whose embedder and indexes fail at certain texts, as no known text makes them.

`python choking_agent.py ingest|retrieve`. Everything else is the agent as it ships.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import numpy as np

from agents import ingest, retrieve
from models.embedder import Embedder
from models.retrieval.passages import StoredPassage
from models.retrieval.retriever import Retriever

UNEMBEDDABLE = "chokes the embedder"
UNINDEXABLE = "chokes the index"


class ChokingEmbedder(Embedder):
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if any(UNEMBEDDABLE in text for text in texts):
            raise ValueError("cannot embed this")
        return super().embed(texts)


class ChokingRetriever(Retriever):
    def apply(
        self,
        upserts: Sequence[StoredPassage],
        deletes: Sequence[str],
        held: Collection[str] = frozenset(),
    ) -> None:
        super().apply(upserts, deletes, held)
        # As late as can be: one index has it, the other has failed.
        if any(UNINDEXABLE in passage.text for passage in upserts):
            raise ValueError("cannot index this")


if __name__ == "__main__":
    ingest.Embedder = retrieve.Embedder = ChokingEmbedder  # type: ignore[misc]
    retrieve.Retriever = ChokingRetriever  # type: ignore[misc]
    {"ingest": ingest.main, "retrieve": retrieve.main}[sys.argv.pop()]()
