"""The sender of one answer's chunks, with a send that only remembers."""

from __future__ import annotations

import asyncio

import pytest

from agents.generation.chunks import ChunkSender, Part, joined
from schemas.events import TokenLogprob

LONG_MS = 60_000.0


class Sent:
    """What was sent, in order. `gate` holds sends back while it is not set."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, str]] = []
        self.choices: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, index: int, part: Part) -> None:
        await self.gate.wait()
        self.chunks.append((index, part.text))
        self.choices.append(part.choice)

    async def holds(self, count: int) -> None:
        """Wait until so many chunks were sent."""
        async with asyncio.timeout(5):
            while len(self.chunks) < count:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_the_first_piece_goes_at_once_and_a_burst_makes_one_chunk() -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, LONG_MS)
    sender.add(Part("first"))
    await sent.holds(1)
    for letter in "abcdef":
        sender.add(Part(letter))
        await asyncio.sleep(0)
    assert sent.chunks == [(0, "first")]
    assert (await sender.finish()).text == "abcdef"
    assert sent.chunks == [(0, "first")]


@pytest.mark.asyncio
async def test_at_most_one_chunk_is_sent_in_an_interval() -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, interval_ms=20)
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() - started < 0.2:
        sender.add(Part("x"))
        await asyncio.sleep(0.001)
    intervals = (loop.time() - started) / 0.020
    await sender.finish()
    assert len(sent.chunks) <= intervals + 1  # One at the start.
    assert len(sent.chunks) > 1


@pytest.mark.asyncio
@pytest.mark.parametrize("interval_ms", [0.0, 0.5, LONG_MS])
async def test_chunks_are_numbered_and_hold_every_piece_in_order(interval_ms: float) -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, interval_ms)
    pieces = [f"{number} " for number in range(200)]
    for number, piece in enumerate(pieces):
        sender.add(Part(piece))
        if number % 7 == 0:
            await asyncio.sleep(0)
    rest = (await sender.finish()).text
    assert sender.sent == len(sent.chunks)
    assert [index for index, _ in sent.chunks] == list(range(len(sent.chunks)))
    assert "".join(text for _, text in sent.chunks) + rest == "".join(pieces)


@pytest.mark.asyncio
async def test_a_slow_broker_makes_chunks_larger_not_a_queue_longer() -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, 0.0)
    sender.add(Part("first"))
    await asyncio.sleep(0)
    sent.gate.clear()
    for letter in "abc":
        sender.add(Part(letter))
        await asyncio.sleep(0)
    sent.gate.set()
    rest = (await sender.finish()).text
    assert len(sent.chunks) <= 3
    assert "".join(text for _, text in sent.chunks) + rest == "firstabc"


@pytest.mark.asyncio
@pytest.mark.parametrize("pieces", [[], ["", ""]])
async def test_an_answer_without_text_sends_nothing(pieces: list[str]) -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, 0.0)
    for piece in pieces:
        sender.add(Part(piece))
    assert (await sender.finish()).text == ""
    assert sent.chunks == []


@pytest.mark.asyncio
async def test_answers_to_one_prompt_are_not_mixed_in_a_chunk() -> None:
    sent = Sent()
    sender = ChunkSender(sent.send, LONG_MS)
    told = TokenLogprob("y", -0.5)
    for part in (Part("b", 1), Part("a"), Part("y", 1, (told,)), Part("x")):
        sender.add(part)
    await sent.holds(2)
    sender.add(Part("q", 1))
    sender.add(Part("p"))
    rest = await sender.finish()
    assert sent.chunks == [(0, "ax"), (1, "by"), (2, "p")]
    assert sent.choices == [0, 1, 0]
    assert rest == Part("q", 1)
    assert joined([Part("b", 1), Part("y", 1, (told,))]) == [Part("by", 1, (told,))]


@pytest.mark.asyncio
async def test_what_failed_to_be_sent_is_raised_by_finish() -> None:
    async def fail(index: int, part: Part) -> None:
        raise ConnectionError(f"chunk {index}")

    sender = ChunkSender(fail, 0.0)
    sender.add(Part("x"))
    await asyncio.sleep(0)
    sender.add(Part("y"))
    with pytest.raises(ConnectionError, match="chunk 0"):
        await sender.finish()
