"""The demonstration's documents."""

from __future__ import annotations

import textwrap

import pytest

from infra.demo.run import QUESTIONS
from infra.demo.stdlib_documents import MODULES, stdlib_documents
from schemas import codec
from schemas.events import Document
from schemas.topics import DOCUMENTS


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """Documents by their id."""
    found = list(stdlib_documents())
    by_id = {document.document_id or "": document for document in found}
    assert len(by_id) == len(found)
    return by_id


def test_there_are_enough_to_search_in(documents: dict[str, Document]) -> None:
    assert len(documents) > 1000


def test_all_of_them_can_be_published(documents: dict[str, Document]) -> None:
    for document in documents.values():
        assert codec.decode(DOCUMENTS, codec.encode(document)) == document


def test_a_document_is_a_signature_and_its_docstring(documents: dict[str, Document]) -> None:
    document = documents["stdlib/textwrap.dedent"]
    assert document.text.startswith("textwrap.dedent(text)\n\nRemove any common leading")
    assert textwrap.dedent.__doc__ is not None
    assert document.title == "textwrap.dedent"
    assert document.metadata == {"module": "textwrap"}


def test_builtins_go_by_their_own_names(documents: dict[str, Document]) -> None:
    assert documents["stdlib/len"].text.startswith("len(obj, /)")


def test_modules_speak_for_themselves(documents: dict[str, Document]) -> None:
    spoken_for = {document.metadata["module"] for document in documents.values()}
    assert spoken_for == set(MODULES)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_of_the_demonstration_has_its_document(
    documents: dict[str, Document], question: str
) -> None:
    name = question.removeprefix("What does ").removesuffix(" do?")
    assert f"stdlib/{name}" in documents
