"""An answer as its asker sees it, fed with chunks as if they had come from Kafka."""

from __future__ import annotations

import gc

import pytest

from schemas.errors import AnswerTimeout, BrokerUnreachable, GenerationFailed
from schemas.events import FinishReason, Generation, Timings, TokenChunk, Usage
from schemas.ids import generation_id
from streams.answer import Answer
from streams.assembly import Delta
from streams.replies import Chunks, Replies
from streams.settings import KafkaSettings

ID = generation_id("p")


def chunk(index: int, text: str, generation: Generation | None = None) -> TokenChunk:
    return TokenChunk(ID, "p", 1, index, text, "v1", generation=generation)


def finished(text: str, reason: FinishReason = "stop", error: str | None = None) -> Generation:
    timings = Timings(0, 0, 0, 0)
    return Generation(
        ID, "p", text, reason, "m", "v1", 1, [], [], Usage(1, 1), timings, error=error
    )


class Asked:
    """An answer that waits for the chunks put in its queue; what it cancels is remembered."""

    def __init__(self, silence_s_max: float = 5.0) -> None:
        self.replies = Replies(KafkaSettings())
        self.cancelled: list[str] = []
        self.answer = Answer("p", self.replies, self._cancel, silence_s_max)
        self.chunks: Chunks = self.replies.expect(ID)

    async def _cancel(self, prompt_id: str) -> None:
        self.cancelled.append(prompt_id)

    def forgotten(self) -> bool:
        """Whether chunks that come later would go nowhere."""
        return self.replies.expect(ID) is not self.chunks


@pytest.mark.asyncio
async def test_deltas_come_as_chunks_do_and_end_with_the_record() -> None:
    asked = Asked()
    for item in (chunk(0, "a"), chunk(1, "b"), chunk(2, "", finished("ab"))):
        asked.chunks.put_nowait(item)
    assert [delta async for delta in asked.answer] == [Delta("a", "v1"), Delta("b", "v1")]
    assert asked.answer.text == "ab"
    assert asked.answer.generation == finished("ab")
    assert asked.forgotten()


@pytest.mark.asyncio
async def test_the_finished_record_can_be_had_again() -> None:
    asked = Asked()
    asked.chunks.put_nowait(chunk(0, "", finished("ab")))
    assert await asked.answer.finished() == await asked.answer.finished() == finished("ab")


@pytest.mark.asyncio
async def test_silence_ends_in_a_timeout_that_says_what_to_look_at() -> None:
    asked = Asked(silence_s_max=0.01)
    with pytest.raises(AnswerTimeout, match=r"Nothing came for p in 0\.01 s.*headwater up"):
        await asked.answer.finished()
    # Whoever waited may wait again; a question that nobody holds any more is forgotten.
    del asked.answer
    gc.collect()
    assert asked.forgotten()


@pytest.mark.asyncio
async def test_an_engine_that_gave_up_is_an_error_with_its_reason() -> None:
    asked = Asked()
    asked.chunks.put_nowait(chunk(0, "", finished("", "error", "too long")))
    with pytest.raises(GenerationFailed, match="too long"):
        await asked.answer.finished()
    assert asked.answer.generation is not None


@pytest.mark.asyncio
async def test_a_lost_broker_is_raised_to_whoever_waits() -> None:
    asked = Asked()
    asked.chunks.put_nowait(BrokerUnreachable("Gone."))
    with pytest.raises(BrokerUnreachable, match="Gone"):
        await asked.answer.finished()


@pytest.mark.asyncio
async def test_a_cancelled_answer_ends_without_an_error() -> None:
    asked = Asked()
    await asked.answer.cancel()
    asked.chunks.put_nowait(chunk(0, "", finished("a", "cancelled")))
    assert asked.cancelled == ["p"]
    assert (await asked.answer.finished()).finish_reason == "cancelled"
