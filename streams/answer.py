"""One answer as its asker sees it: tokens while they are made, then the finished record."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from schemas.errors import AnswerTimeout, GenerationFailed, HeadwaterError
from schemas.events import FoundPassage, Generation, TokenChunk
from schemas.ids import generation_id
from streams.assembly import Assembly, Delta
from streams.hops import prompt_waits_for
from streams.producer import Delivered
from streams.replies import Chunks
from streams.settings import KafkaSettings


class Replies(Protocol):
    """Where an answer's chunks come from: the client's reply partition, or one that is resumed."""

    @property
    def settings(self) -> KafkaSettings: ...

    def expect(self, generation_id: str) -> Chunks: ...

    def forget(self, generation_id: str) -> None: ...


class Answer:
    """Iterate it for `Delta`s; `await answer.finished()` gives the durable record."""

    def __init__(
        self,
        prompt_id: str,
        replies: Replies,
        cancel: Callable[[str], Awaitable[None]],
        silence_s_max: float,
    ) -> None:
        self.prompt_id = prompt_id
        self.generation_id = generation_id(prompt_id)
        self.prompted: Delivered | None = None  # where the prompt is, once it was sent
        # From which partition and offset of `tokens` all of its chunks can be read again.
        self.place: tuple[int, int] | None = None
        # The offset at which its reader said there that it is resumed; -1 for who asked.
        self.resumed_at = -1
        self._replies = replies
        self._chunks = replies.expect(self.generation_id)
        weakref.finalize(self, replies.forget, self.generation_id)
        self._cancel = cancel
        self._silence_s_max = silence_s_max
        self._assembly = Assembly()

    @property
    def text(self) -> str:
        """The answer so far; of n answers, the first."""
        return self._assembly.delivered()

    @property
    def passages(self) -> list[FoundPassage]:
        """What was found for the prompt; known from the first delta on."""
        return self._assembly.passages

    @property
    def generation(self) -> Generation | None:
        """The finished record, once the iterator has ended."""
        return self._assembly.generation

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas until the answer is finished.

        Raises AnswerTimeout after `silence_s_max` without a sign of life, GenerationFailed when
        the engine gave up.
        """
        try:
            while self._assembly.generation is None:
                for delta in self._assembly.add(await self._next_chunk()):
                    yield delta
        finally:
            # Who leaves the loop early may come back for the rest.
            if self._assembly.generation is not None:
                self._replies.forget(self.generation_id)
        if self._assembly.generation.finish_reason == "error":
            raise GenerationFailed(
                f"No answer to {self.prompt_id}: {self._assembly.generation.error}",
                "Change the prompt, or see the log of the generate agent.",
            )

    async def finished(self) -> Generation:
        """Wait for the end and return the finished record; raises as iteration does."""
        async for _ in self:
            pass
        assert self._assembly.generation is not None
        return self._assembly.generation

    async def cancel(self) -> None:
        """Ask the engine to stop. The answer then ends with finish_reason `cancelled`."""
        await self._cancel(self.prompt_id)

    async def waits_for(self) -> str:
        """What the answer waits for now, in words: an agent without workers, or who has it."""
        if self._assembly.begun or self._assembly.generation is not None:
            return "the generate agent had begun with it"
        if self.prompted is None:
            return "its prompt was not sent yet"
        try:
            return await asyncio.to_thread(prompt_waits_for, self._replies.settings, self.prompted)
        except HeadwaterError as error:
            return error.message.rstrip(".")

    async def _next_chunk(self) -> TokenChunk:
        silence = _Silence("")
        loop = asyncio.get_running_loop()
        # No `wait_for`: it makes a task of each chunk.
        timer = loop.call_later(self._silence_s_max, self._chunks.put_nowait, silence)
        try:
            item = await self._chunks.get()
            # One that came together with a chunk means nothing any more.
            while isinstance(item, _Silence) and item is not silence:
                item = await self._chunks.get()
        finally:
            timer.cancel()
        if item is silence:
            raise AnswerTimeout(
                f"Nothing came for {self.prompt_id} in {self._silence_s_max:g} s: "
                f"{await self.waits_for()}.",
                "`headwater up` starts the agents; `headwater dead-letters list` shows prompts "
                "that could not be processed.",
            )
        if isinstance(item, HeadwaterError):
            raise item
        return item


class _Silence(HeadwaterError):
    """Put among the chunks when none came for too long."""
