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
from streams.answer import Answer
from streams.assembly import Delta
from streams.replies import Replies
from streams.settings import KafkaSettings

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


class Streams:
    """The departures of one gateway, and what it cancelled."""

    def __init__(self, grace_s: float = 0.02) -> None:
        self.cancelled: list[str] = []
        self.departures = Departures(grace_s, self.cancelled.append)
        self._replies = Replies(KafkaSettings())

    def begin(self, prompt_id: str, resumed_at: int = -1) -> Answer:
        """A stream comes: the first, or one that said at this offset that it reads on."""
        answer = Answer(prompt_id, self._replies, self._cancel, 1.0)
        answer.resumed_at = resumed_at
        self.departures.came(answer)
        return answer

    async def _cancel(self, prompt_id: str) -> None:
        self.cancelled.append(prompt_id)


@pytest.mark.asyncio
async def test_a_broken_stream_is_cancelled_unless_somebody_reads_on() -> None:
    streams = Streams()
    for prompt_id in ("gone", "resumed here", "resumed elsewhere"):
        streams.departures.left(streams.begin(prompt_id))
    streams.begin("resumed here", 5)
    streams.departures.resumed("resumed elsewhere", 6)
    await asyncio.sleep(0.1)
    assert streams.cancelled == ["gone"]
    streams.departures.left(streams.begin("late"))
    streams.departures.ending = True
    streams.departures.left(streams.begin("goes on elsewhere"))
    streams.departures.close()
    assert streams.cancelled == ["gone", "late"]


@pytest.mark.asyncio
async def test_the_last_of_several_readers_cancels() -> None:
    streams = Streams(grace_s=0.0)
    # The old connection is noticed dead after its stream was resumed.
    old, new = streams.begin("p"), streams.begin("p", 5)
    streams.departures.resumed("p", 5)
    streams.departures.left(old)
    await asyncio.sleep(0.01)
    assert streams.cancelled == []
    streams.departures.left(new)
    await asyncio.sleep(0.01)
    assert streams.cancelled == ["p"]


@pytest.mark.asyncio
async def test_of_two_gateways_the_one_that_resumed_last_cancels() -> None:
    here, there = Streams(grace_s=0.0), Streams(grace_s=0.0)

    def resume(streams: Streams, offset: int) -> Answer:
        for told in (here, there):
            told.departures.resumed("p", offset)
        return streams.begin("p", offset)

    # It goes from here to there and back, and all that break are noticed late.
    first, second, third = here.begin("p"), resume(there, 5), resume(here, 9)
    # Who reads the chunks again hears of what was said before.
    here.departures.resumed("p", 5)
    for streams, answer in ((here, first), (there, second)):
        streams.departures.left(answer)
    await asyncio.sleep(0.01)
    assert here.cancelled == there.cancelled == []
    here.departures.left(third)
    await asyncio.sleep(0.01)
    assert (here.cancelled, there.cancelled) == (["p"], [])
