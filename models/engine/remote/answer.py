"""One request to the server: its stream, and when it is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from models.engine.protocol import Piece
from models.engine.remote.adapters import RemoteAdapters
from models.engine.remote.chunks import ChatChunk, chat_chunks
from models.engine.remote.client import CHAT, ServerClient
from models.engine.remote.faults import Backoff, ServerFault
from models.engine.remote.options import RemoteEngineOptions
from models.engine.remote.tally import Tally
from models.engine.remote.waits import Waits
from schemas.errors import EventInvalid

# A request that may itself be what the server fails at is sent so often, and no more.
_TRIES_MAX: Final = 3
# After its reason to end, an answer's counts come at once, or never.
_AFTER_END_S: Final = 1.0


@dataclass(slots=True)
class RemoteAnswer:
    """An answer in the making. `may_shorten`: without max_tokens it would end where it must."""

    client: ServerClient
    options: RemoteEngineOptions
    adapters: RemoteAdapters
    waits: Waits
    body: dict[str, Any]
    tally: Tally
    may_shorten: bool
    _failures: int = field(default=0, init=False)
    _unclear: bool = field(default=False, init=False)
    # Done once: it helps then or never.
    _restored: bool = field(default=False, init=False)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces, of the attempt that succeeds. Raises as `Engine.stream` does."""
        backoff = Backoff(self.options.retry_for_s)
        while True:
            try:
                async with aclosing(self._attempt()) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except (ServerFault, EventInvalid) as fault:
                pause_s = await self._pause_s(fault, backoff)
                if pause_s is None:
                    yield self._end(fault)
                    return
            async with self.waits.until(None):
                await asyncio.sleep(pause_s)
            # Only now: the server may just have closed the connection that asking would use.
            if self._unclear:
                await self._ask_why()

    async def _attempt(self) -> AsyncGenerator[Piece, None]:
        async with AsyncExitStack() as stack:
            deadline_s = _now_s() + self.options.first_token_timeout_s
            chunks = await self._opened(stack, deadline_s)
            while (chunk := await self._next(chunks, deadline_s)) is not None:
                if (piece := self.tally.add(chunk)) is not None:
                    yield piece
                if self.tally.reason is not None:
                    deadline_s = _now_s() + _AFTER_END_S
                elif self.tally.begun:
                    deadline_s = _now_s() + self.options.token_timeout_s
        yield self.tally.last()

    async def _opened(
        self, stack: AsyncExitStack, deadline_s: float
    ) -> AsyncGenerator[ChatChunk, None]:
        try:
            async with self.waits.until(deadline_s):
                data = await stack.enter_async_context(self.client.chat(self.body))
        except TimeoutError:
            raise self._silent() from None
        return await stack.enter_async_context(aclosing(chat_chunks(data)))

    async def _next(
        self, chunks: AsyncGenerator[ChatChunk, None], deadline_s: float
    ) -> ChatChunk | None:
        try:
            async with self.waits.until(deadline_s):
                return await anext(chunks, None)
        except (TimeoutError, ServerFault) as error:
            if self.tally.reason is not None:
                # The answer is complete; only its counts are missing.
                return None
            raise error if isinstance(error, ServerFault) else self._silent() from None

    def _silent(self) -> ServerFault:
        options = self.options
        limit_s = options.token_timeout_s if self.tally.begun else options.first_token_timeout_s
        return ServerFault(
            f"The server sent no token for {limit_s:g} s.",
            "Give it less to do, or allow a longer silence in the settings.",
            transient=False,
        )

    def _end(self, fault: ServerFault | EventInvalid) -> Piece:
        """The last piece, where the fault is an answer; else raises it."""
        if not self.tally.begun and (isinstance(fault, EventInvalid) or fault.down):
            raise fault
        return self.tally.failed(fault)

    async def _pause_s(self, fault: ServerFault | EventInvalid, backoff: Backoff) -> float | None:
        """How long to wait before the request is sent again; None not to."""
        self._unclear = False
        if self.tally.begun:
            return None
        if isinstance(fault, EventInvalid):
            # vLLM refuses max_tokens beyond the context instead of stopping there.
            shorten = self.may_shorten and self.body.pop("max_tokens", None) is not None
            return 0.0 if shorten else None
        if fault.not_served and not self._restored:
            self._restored = True
            return 0.0 if await self.adapters.restore(self.body["model"]) else None
        self._failures += not fault.down
        if not fault.transient or self._failures == _TRIES_MAX:
            return None
        self._unclear = self._failures == 1 and not fault.down
        return backoff.next_s(fault.retry_after_s)

    async def _ask_why(self) -> None:
        """Raises EventInvalid where the server refuses the request.

        llama-cpp-python's server answers 200 before it has looked at a streamed request, and then
        breaks off without a word. Without streaming it says what is wrong.
        """
        body = {**self.body, "stream": False, "max_tokens": 1}
        body.pop("stream_options", None)
        try:
            async with self.waits.until(_now_s() + self.options.first_token_timeout_s):
                await self.client.post(CHAT, body)
        except (ServerFault, TimeoutError):
            # Then it was no refusal, and the request is sent again as it was.
            return


def _now_s() -> float:
    return asyncio.get_running_loop().time()
