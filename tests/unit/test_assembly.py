"""Chunks of one answer put together, whatever attempts, repeats and gaps there were."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from schemas.events import Alternative, FoundPassage, Generation, Timings, TokenChunk, Usage
from streams.assembly import Assembly, Delta

PASSAGE = FoundPassage("a#0", "a", "a text", 1.0)


def chunk(attempt: int, index: int, text: str, **fields: object) -> TokenChunk:
    return TokenChunk("g", "p", attempt, index, text, f"v{attempt}", **fields)  # type: ignore[arg-type]


def finished(text: str) -> Generation:
    return Generation(
        "g", "p", text, "stop", "m", "v1", 1, [PASSAGE], [], Usage(1, 1), Timings(0, 0, 0, 0)
    )


def last(attempt: int, index: int, text: str, final: str) -> TokenChunk:
    """The chunk that ends an attempt; it carries the finished record with the text `final`."""
    return chunk(attempt, index, text, finish_reason="stop", generation=finished(final))


def deltas(assembly: Assembly, chunks: Iterable[TokenChunk]) -> list[Delta]:
    return [delta for item in chunks for delta in assembly.add(item)]


def test_pieces_arrive_in_order() -> None:
    assembly = Assembly()
    found = deltas(
        assembly, [chunk(1, 0, "Water "), chunk(1, 1, "boils"), last(1, 2, ".", "Water boils.")]
    )
    assert found == [Delta("Water ", "v1"), Delta("boils", "v1"), Delta(".", "v1")]
    assert assembly.generation == finished("Water boils.")


def test_the_first_chunk_tells_the_passages() -> None:
    assembly = Assembly()
    assembly.add(chunk(1, 0, "Water", passages=[PASSAGE]))
    assert assembly.passages == [PASSAGE]
    assembly.add(chunk(1, 1, " boils"))
    assert assembly.passages == [PASSAGE]


def test_a_repeated_chunk_adds_nothing() -> None:
    assembly = Assembly()
    assert deltas(
        assembly, [chunk(1, 0, "a"), chunk(1, 0, "a"), chunk(1, 1, "b"), chunk(1, 0, "a")]
    ) == [
        Delta("a", "v1"),
        Delta("b", "v1"),
    ]


def test_a_new_attempt_that_agrees_continues_where_the_old_one_stopped() -> None:
    assembly = Assembly()
    chunks = [chunk(1, 0, "Water "), chunk(2, 0, "Wa"), chunk(2, 1, "ter boils")]
    assert deltas(assembly, chunks) == [Delta("Water ", "v1"), Delta("boils", "v2")]


def test_a_new_attempt_that_differs_starts_over() -> None:
    assembly = Assembly()
    chunks = [chunk(1, 0, "Water "), chunk(2, 0, "Wine"), chunk(2, 1, "s")]
    assert deltas(assembly, chunks) == [
        Delta("Water ", "v1"),
        Delta("Wine", "v2", restart=True),
        Delta("s", "v2"),
    ]


def test_a_chunk_of_a_superseded_attempt_is_ignored() -> None:
    assembly = Assembly()
    assert deltas(assembly, [chunk(2, 0, "new"), chunk(1, 0, "old"), chunk(1, 1, "er")]) == [
        Delta("new", "v2")
    ]


def test_the_finished_record_counts_whatever_the_clock_of_its_worker_said() -> None:
    assembly = Assembly()
    chunks = [chunk(2, 0, "early"), last(1, 0, "truth", "truth")]
    assert deltas(assembly, chunks) == [Delta("early", "v2"), Delta("truth", "v1", restart=True)]
    assert assembly.generation is not None


def test_a_gap_is_bridged_by_the_finished_record() -> None:
    assembly = Assembly()
    chunks = [chunk(1, 0, "a"), chunk(1, 2, "c"), last(1, 3, "d", "abcd")]
    assert deltas(assembly, chunks) == [Delta("a", "v1"), Delta("bcd", "v1")]


def test_a_subscriber_that_sees_only_the_end_gets_all_of_it() -> None:
    assert deltas(Assembly(), [last(1, 9, "d", "abcd")]) == [Delta("abcd", "v1")]


def test_a_finished_record_that_is_shorter_takes_text_back() -> None:
    """A cancelled attempt was committed by another worker before it said as much."""
    assembly = Assembly()
    chunks = [chunk(1, 0, "Water boils"), last(2, 0, "Water", "Water")]
    assert deltas(assembly, chunks)[-1] == Delta("Water", "v2", restart=True)


def test_nothing_is_added_after_the_end() -> None:
    assembly = Assembly()
    chunks = [last(1, 0, "all", "all"), chunk(2, 0, "more"), last(2, 1, "", "more")]
    assert deltas(assembly, chunks) == [Delta("all", "v1")]
    assert assembly.generation == finished("all")


def test_an_empty_answer_ends_without_a_delta() -> None:
    assembly = Assembly()
    assert deltas(assembly, [last(1, 0, "", "")]) == []
    assert assembly.generation is not None


def test_several_answers_to_one_prompt_are_kept_apart() -> None:
    assembly = Assembly()
    record = structs.replace(finished("ab"), alternatives=[Alternative("xyz", "length")])
    chunks = [
        chunk(1, 0, "a"),
        chunk(1, 1, "x", choice=1),
        chunk(2, 0, "w", choice=1),
        chunk(2, 1, "a"),
        chunk(2, 2, "b", finish_reason="stop", generation=record),
    ]
    assert deltas(assembly, chunks) == [
        Delta("a", "v1"),
        Delta("x", "v1", choice=1),
        Delta("w", "v2", restart=True, choice=1),
        Delta("b", "v2"),
        Delta("xyz", "v2", restart=True, choice=1),
    ]


@st.composite
def chunk_logs(draw: st.DrawFn) -> tuple[list[TokenChunk], str]:
    """Chunks of several attempts, any number of times and in any order; the last one finishes."""
    chunks: list[TokenChunk] = []
    count = draw(st.integers(1, 4))
    pieces: list[str] = []
    for attempt in range(1, count + 1):
        # Two letters only, so that attempts often agree.
        pieces = draw(st.lists(st.text("ab", max_size=3), max_size=5))
        chunks += [chunk(attempt, index, text) for index, text in enumerate(pieces)]
    repeats = draw(st.lists(st.sampled_from(chunks))) if chunks else []
    # The finished record may be that of a predecessor, whose text was another one.
    final = draw(st.sampled_from(["".join(pieces), "abab"]))
    chunks.append(last(count, len(pieces), "", final))
    return draw(st.permutations(chunks + repeats)), final


@given(chunk_logs())
def test_whatever_arrives_the_reader_ends_with_the_finished_text(
    log: tuple[list[TokenChunk], str],
) -> None:
    chunks, final = log
    assembly, read = Assembly(), ""
    for item in chunks:
        for delta in assembly.add(item):
            read = delta.text if delta.restart else read + delta.text
        assert read == assembly.delivered()
    assert read == final
