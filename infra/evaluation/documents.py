"""Articles studied one after the other: what that does to articles still to come, and in general.

The lessons are those of `headwater agent study`, without Kafka. The last quarter of the articles
is never studied: perplexity on it says whether the model follows the stream.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

from infra.demo.general_texts import general_items
from infra.demo.questions import questions
from models.engine.load import Loaded
from models.learning.batches import EncodedAnswer, encode_answer
from models.learning.learner import end_token_of
from models.learning.lora import LoraShape
from models.learning.user_gradients import AdaptedModel
from models.privacy.noise import Tensors
from models.prompting import build_messages
from models.studying.curriculum import Curriculum
from models.studying.general import GeneralItem, encode_general
from models.studying.perplexity import perplexity, token_loss
from models.studying.study import Study
from models.studying.texts import Text, encode_texts, rows_alone, separator
from schemas.errors import DataInvalid
from schemas.events import Document

Rows = list[EncodedAnswer]
# Enough to tell 0.5 %, and few enough to be measured several times.
_TEXTS_MAX = 16
_TEXT_TOKENS = 160
_ARTICLES_MIN = 4


@dataclass(frozen=True, slots=True)
class Point:
    """Perplexities after so many passages.

    `to_come` are articles that are never studied, `old` the first that were. `general` are texts of
    the kinds that lessons replay, but others; `packages` are descriptions of installed packages,
    which no lesson has; `chat` are answers.
    """

    passages: int
    seconds: float
    to_come: float
    old: float
    general: float
    packages: float
    chat: float


@dataclass(frozen=True, slots=True)
class Probes:
    """What is measured, as rows."""

    to_come: Rows
    old: Rows
    general: Rows
    packages: Rows
    chat: Rows

    def measure(self, model: AdaptedModel, adapter: Tensors) -> dict[str, float]:
        """The perplexity of each."""
        return {
            name: round(perplexity(token_loss(model, adapter, getattr(self, name))), 4)
            for name in ("to_come", "old", "general", "packages", "chat")
        }


class Trial:
    """A stream of articles and the study that reads it."""

    def __init__(
        self, loaded: Loaded, documents: Sequence[Document], curriculum: Curriculum, folder: Path
    ) -> None:
        """Raises DataInvalid for fewer than four articles."""
        articles = articles_of(documents)
        if len(articles) < _ARTICLES_MIN:
            raise DataInvalid(
                f"{len(articles)} articles are too few.", f"Give {_ARTICLES_MIN} or more."
            )
        studied = len(articles) * 3 // 4
        self.stream = [
            Text(document.document_id or "", document.document_id or "", document.text)
            for article in articles[:studied]
            for document in article
        ]
        items = general_items()
        self.probes = _probes(loaded, articles, studied, items)
        self._shape = curriculum.student.shape
        # All of the stream is studied: the articles to come take the gate's place.
        whole = replace(curriculum, held_out_of=0)
        self.study = Study(loaded, whole, items, folder, "documents", "base")

    def run(self, points: int, told: Callable[[Point], None]) -> None:
        """Studies the stream from where its folder says; the first point is before all of it."""
        started_s = time.monotonic()
        told(self._point(0, started_s))
        ends = {len(self.stream) * number // points for number in range(1, points + 1)}
        begun = self.study.notes.studied + len(self.study.notes.waiting)
        if begun == len(self.stream):
            told(self._point(begun, started_s))
        for count, text in enumerate(self.stream[begun:], start=begun + 1):
            self.study.read(text)
            if self.study.due:
                self.study.lesson()
                self.study.save()
            if count in ends:
                told(self._point(count, started_s))

    @property
    def studied(self) -> tuple[Tensors, LoraShape]:
        """The adapter as it is now."""
        return self.study.student.adapter, self._shape

    def _point(self, passages: int, started_s: float) -> Point:
        student = self.study.student
        found = self.probes.measure(student.model, student.adapter if passages else {})
        return Point(passages, round(time.monotonic() - started_s, 1), **found)


def verdict(points: Sequence[Point]) -> dict[str, float | bool]:
    """Changes from the first point to the last in percent, and whether the promise was kept."""
    first, last = points[0], points[-1]
    change = {
        name: round(100 * (getattr(last, name) / getattr(first, name) - 1), 2)
        for name in ("to_come", "old", "general", "packages", "chat")
    }
    falls = all(b.to_come < a.to_come for a, b in pairwise(points))
    harmless = all(change[name] <= 2.0 for name in ("general", "packages", "chat"))
    return {**change, "to_come_falls": falls, "general_rises_2_percent_at_most": harmless}


def articles_of(documents: Sequence[Document]) -> list[list[Document]]:
    """Paragraphs by article, in the order of the file."""
    grouped = groupby(documents, key=lambda document: (document.document_id or "").split("/")[0])
    return [list(article) for _, article in grouped]


def _probes(
    loaded: Loaded,
    articles: Sequence[Sequence[Document]],
    studied: int,
    items: Sequence[GeneralItem],
) -> Probes:
    tokenizer, end = loaded.tokenizer, end_token_of(loaded)

    def rows(texts: Sequence[str], most: int = _TEXTS_MAX) -> Rows:
        found = encode_texts(tokenizer, texts[:most], _TEXT_TOKENS)
        return rows_alone(found, separator(tokenizer))

    general = encode_general(tokenizer, end, items)
    chat = [
        encode_answer(
            tokenizer,
            end,
            build_messages([{"role": "user", "content": found.question}], [found.passage]),
            found.answer,
            256,
        )
        for found in questions("held-out")[:24]
    ]
    return Probes(
        to_come=rows(
            [document.text for article in articles[studied:] for document in article[:2]], 24
        ),
        old=rows([document.text for article in articles[:studied] for document in article][:12]),
        general=list(general.gate_texts[:_TEXTS_MAX]),
        packages=rows(_package_descriptions()),
        chat=chat,
    )


def _package_descriptions() -> list[str]:
    """Those of installed packages that say something, evenly over the alphabet."""
    named = sorted(importlib.metadata.distributions(), key=lambda found: found.name.lower())
    texts = [str(found.metadata.json.get("description") or "") for found in named]
    said = [text[:2_000] for text in texts if len(text) > 600]
    return said[:: max(1, len(said) // _TEXTS_MAX)]
