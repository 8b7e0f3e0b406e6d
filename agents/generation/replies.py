"""Sending the chunks of an answer to where its asker reads."""

from __future__ import annotations

from typing import Final

from agents.generation.chunks import Part
from agents.generation.draft import last_chunk
from agents.generation.fitting import shrunk
from schemas import codec, headers
from schemas.errors import RecordTooLarge
from schemas.events import Generation, TokenChunk
from schemas.headers import Headers
from schemas.topics import TOKENS, Topic
from streams.producer import Outgoing, Producer

SOURCE: Final = "/agents/generate"


def headers_of(topic: Topic, event_id: str, trace: str) -> Headers:
    """Those of a record that a generate worker writes; `trace` is its traceparent."""
    return headers.make_headers(topic, event_id, SOURCE, trace)


class Replies:
    """Writes to `tokens`, which has so many partitions."""

    def __init__(self, producer: Producer, token_partitions: int) -> None:
        self._producer = producer
        self._token_partitions = token_partitions

    async def send(self, chunk: TokenChunk, wanted: int | None, trace: str) -> None:
        """Send a chunk to the partition that its prompt wants. Raises RecordTooLarge."""
        # A partition that does not exist must not stop the flow: the key decides then.
        partition = wanted if wanted is not None and wanted < self._token_partitions else None
        event_id = f"{chunk.generation_id}/{chunk.attempt}/{chunk.index}"
        made = headers_of(TOKENS, event_id, trace)
        value = codec.checked(TOKENS, chunk)
        await self._producer.send(Outgoing(TOKENS, chunk.prompt_id, value, made, partition))

    async def end(
        self,
        generation: Generation,
        attempt: int,
        index: int,
        rest: Part,
        wanted: int | None,
        trace: str,
    ) -> None:
        """Send the last chunk, as much of it as fits: the finished record repeats `rest`."""
        while True:
            try:
                chunk = last_chunk(generation, attempt, index, rest)
                return await self.send(chunk, wanted, trace)
            except RecordTooLarge as error:
                if rest == Part(""):
                    generation = shrunk(generation, error)
                rest = Part("")
