"""What the page tells of an answer's reasons comes from its record alone."""

from __future__ import annotations

from infra.pages.why import reasons
from schemas.events import Choice, FoundPassage, Generation, Timings, Usage


def generation(passages: list[FoundPassage], choice: Choice | None = None) -> Generation:
    return Generation(
        *("g", "p", "Deep.", "stop", "smollm2", "default-3", 1),
        passages=passages,
        cited=[],
        usage=Usage(40, 2),
        timings=Timings(1, 2, 3, 4),
        choice=choice,
    )


def test_each_passage_says_what_it_was_found_by() -> None:
    found = [
        FoundPassage("a#0", "a", "…", score=0.8, cosine=0.5, bm25=7.25),
        FoundPassage("b#0", "b", "…", score=0.4, cosine=0.6, bm25=0.0),
        FoundPassage("c#0", "c", "…", score=0.1),
    ]
    assert reasons(generation(found))[:3] == [
        "[1] score 0.80: meaning 0.50 (no. 2 of 3), shared words 7.2 (no. 1 of 3)",
        "[2] score 0.40: meaning 0.60 (no. 1 of 3), shared words none",
        "[3] score 0.10: no parts are known",
    ]


def test_version_and_variant_are_told() -> None:
    plain = reasons(generation([]))
    assert plain[0].startswith("No passages")
    assert "version default-3" in plain[1]
    assert "no serving variants" in plain[2]
    drawn = reasons(generation([], Choice("warm", 0.25, 12)))[2]
    assert "warm" in drawn and "25%" in drawn and "12 rewards" in drawn
