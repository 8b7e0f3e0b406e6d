"""Question-answering data in SQuAD's JSON format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.errors import EventInvalid
from schemas.events import Document


class _Answer(msgspec.Struct):
    text: str


class _Question(msgspec.Struct):
    question: str
    id: str = ""
    answers: list[_Answer] = []


class _Paragraph(msgspec.Struct):
    context: str
    qas: list[_Question]


class _Article(msgspec.Struct):
    paragraphs: list[_Paragraph]
    title: str = ""


class _File(msgspec.Struct):
    data: list[_Article]


@dataclass(frozen=True, slots=True)
class Squad:
    """Paragraphs as documents, and questions with the document_id that answers each."""

    documents: list[Document]
    questions: list[tuple[str, str]]


def read_squad(path: Path) -> Squad:
    """Read a file; raises EventInvalid where it is missing or no SQuAD JSON."""
    found = _read(path)
    documents: list[Document] = []
    questions: list[tuple[str, str]] = []
    for number, article in enumerate(found.data):
        for index, paragraph in enumerate(article.paragraphs):
            document_id = f"{number}/{article.title[:200]}/{index}"
            documents.append(Document(paragraph.context, document_id, title=article.title or None))
            questions += [(item.question, document_id) for item in paragraph.qas]
    return Squad(documents, questions)


@dataclass(frozen=True, slots=True)
class Answered:
    """A question on its paragraph, and the answer's text."""

    prompt: str
    answer: str


def read_answered(path: Path, context_chars_max: int) -> list[Answered]:
    """The questions of short paragraphs, article by article; raises EventInvalid as above."""
    return [
        Answered(f"{paragraph.context}\n\n{item.question}", item.answers[0].text)
        for article in _read(path).data
        for paragraph in article.paragraphs
        if len(paragraph.context) <= context_chars_max
        for item in paragraph.qas
        if item.answers
    ]


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise EventInvalid(
            f"{path} is no SQuAD file: {error}.", "Give JSON with data, paragraphs, context, qas."
        ) from error
