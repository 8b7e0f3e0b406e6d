"""Ids of events and what a reader has: nothing lost, nothing repeated, nobody else's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.gateway.departures import Departures
from agents.gateway.errors import AnswerChanged, ApiError
from agents.gateway.openai.merging import merged
from agents.gateway.openai.positions import Position, Sent, Signer
from agents.gateway.openai.progress import Progress
from schemas.events import TokenLogprob
from streams.assembly import Delta

SECRET = b"s" * 32
TEXT = "The river 🌊 carries documents."


def position(**changes: object) -> Position:
    made = Position("chatcmpl-1", 2_000_000_000, (3, 70), (0, 5), (Sent(4, 0, b"abcdef"),))
    return msgspec.structs.replace(made, **changes)


def cut(text: str, places: list[int]) -> list[Delta]:
    """A text as deltas, parted at these places."""
    ends = sorted({*(place for place in places if 0 < place < len(text)), len(text)})
    return [Delta(text[a:b], "v") for a, b in zip([0, *ends], ends, strict=False)]


def test_an_id_says_where_one_is() -> None:
    signer = Signer(SECRET, "app", b"{}")
    positions = [position(), position(prompt_id="chatcmpl-2")]
    assert signer.decode(signer.encode(positions)) == positions


@pytest.mark.parametrize(
    "other",
    [Signer(b"t" * 32, "app", b"{}"), Signer(SECRET, "other", b"{}"), Signer(SECRET, "app", b"[]")],
    ids=["gateway", "key", "request"],
)
def test_an_id_is_of_one_key_and_request(other: Signer) -> None:
    with pytest.raises(ApiError, match="not of this request and key"):
        other.decode(Signer(SECRET, "app", b"{}").encode([position()]))


@given(st.binary(max_size=200), st.integers(0, 100))
def test_what_was_not_signed_here_is_refused(noise: bytes, place: int) -> None:
    signer = Signer(SECRET, "app", b"{}")
    raw = bytearray(base64.urlsafe_b64decode(signer.encode([position()])))
    raw[place % len(raw)] ^= 1
    for wrong in (raw, noise):
        with pytest.raises(ApiError, match="not of this request and key"):
            signer.decode(base64.urlsafe_b64encode(wrong).decode())


def test_an_id_is_of_no_use_when_the_chunks_are_gone() -> None:
    signer = Signer(SECRET, "app", b"{}")
    with pytest.raises(ApiError, match="no longer kept"):
        signer.decode(signer.encode([position(created_s=1_000_000)]))


@given(st.lists(st.integers(1, 40)), st.lists(st.integers(1, 40)), st.integers(0, 40))
def test_however_an_answer_is_cut_its_reader_has_each_character_once(
    first: list[int], again: list[int], broken_after: int
) -> None:
    progress, read = Progress(1), ""
    for delta in cut(TEXT, first)[:broken_after]:
        read += (progress.take(delta) or ("", ()))[0]
    resumed = Progress(1, progress.sent())
    assert resumed.sent() == progress.sent()
    for delta in cut(TEXT, again):
        read += (resumed.take(delta) or ("", ()))[0]
    resumed.finish()
    assert read == TEXT


def test_log_probabilities_come_once_too() -> None:
    told = tuple(TokenLogprob(word, -1.0) for word in "abcd")
    progress = Progress(1)
    progress.take(Delta("ab", "v", logprobs=told[:2]))
    resumed = Progress(1, progress.sent())
    assert resumed.take(Delta("abc", "v", logprobs=told[:3])) == ("c", told[2:3])
    assert resumed.take(Delta("", "v", logprobs=told[3:])) == ("", told[3:])


def test_a_reader_is_told_that_an_answer_was_worded_anew() -> None:
    progress = Progress(2)
    progress.take(Delta("Water", "v"))
    with pytest.raises(AnswerChanged):
        progress.take(Delta("Wine", "w", restart=True))
    other = replace(Delta("Wine is", "w"), choice=0)
    with pytest.raises(AnswerChanged):
        Progress(2, progress_of("Water").sent()).take(other)
    short = Progress(1, progress_of("Water").sent()[:1])
    short.take(Delta("Wat", "w"))
    with pytest.raises(AnswerChanged):
        short.finish()


def test_an_attempt_that_the_reader_never_saw_does_not_matter() -> None:
    resumed = Progress(1, progress_of("Wine").sent()[:1])
    assert resumed.take(Delta("Wat", "v")) is None
    assert resumed.take(Delta("Wine is", "w", restart=True)) == (" is", ())


@pytest.mark.asyncio
async def test_several_streams_come_as_one_until_one_breaks() -> None:
    async def counting(count: int, broken: bool = False) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        if broken:
            raise AnswerChanged("worded anew", "Ask again.")

    items = [item async for item in merged([counting(100), counting(3)])]
    assert [n for stream, n in items if stream == 0] == list(range(100))
    assert [n for stream, n in items if stream == 1] == list(range(3))
    seen = []
    with pytest.raises(AnswerChanged):
        async for item in merged([counting(2, broken=True), counting(10_000)]):
            seen.append(item)
    assert (0, 1) in seen


def progress_of(text: str) -> Progress:
    progress = Progress(2)
    progress.take(Delta(text, "v"))
    return progress


@pytest.mark.asyncio
async def test_a_broken_stream_is_cancelled_unless_somebody_reads_on() -> None:
    cancelled: list[str] = []
    departures = Departures(0.02, cancelled.append)
    departures.left("gone")
    departures.left("resumed")
    departures.resumed("resumed")
    await asyncio.sleep(0.1)
    assert cancelled == ["gone"]
    departures.left("late")
    departures.ending = True
    departures.left("elsewhere")
    departures.close()
    assert cancelled == ["gone", "late"]
