"""Files, folders and lines of events as documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.document_files import read_documents
from schemas.errors import EventInvalid


def test_title_and_metadata_are_defaults_for_lines_of_events(tmp_path: Path) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_text('{"text": "a"}\n\n{"text": "b", "title": "B", "metadata": {"n": 2, "m": 3}}\n')
    plain, own = read_documents([str(lines)], "Title", {"n": 1, "k": "v"})
    assert (plain.title, plain.metadata) == ("Title", {"n": 1, "k": "v"})
    assert (own.title, own.metadata) == ("B", {"n": 2, "m": 3, "k": "v"})


def test_a_line_ends_where_json_says(tmp_path: Path) -> None:
    lines = tmp_path / "SOME.JSONL"
    lines.write_text('{"text": "one\u2028two\x85three"}\r\n{"text": "b"}', encoding="utf-8")
    assert [d.text for d in read_documents([str(lines)])] == ["one\u2028two\x85three", "b"]


def test_a_line_that_is_no_document_is_named(tmp_path: Path) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(EventInvalid, match=r"some\.jsonl:2: .*text"):
        list(read_documents([str(lines)]))


def test_a_folder_gives_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "deep.md").mkdir()
    (tmp_path / "deep.md" / "a.HTML").write_text("<p>a")
    (tmp_path / "b.bin").write_bytes(b"\x00")
    (document,) = read_documents([str(tmp_path)])
    assert (document.title, document.media_type) == ("a.HTML", "text/html")
