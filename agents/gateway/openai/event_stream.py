"""Server-sent events over HTTP: who leaves is noticed at once, and silence is filled with pings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# A comment. No empty line ends it: some clients would take that for an empty event.
_PING: Final = b": ping\n"


class EventStream(Response):
    """Sends each event by itself. `left` is called at the end, or when the reader goes before."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        left: Callable[[], None],
        pings: Pings,
        headers: dict[str, str],
    ) -> None:
        # Proxies must not hold events back.
        super().__init__(
            headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        # There is no length before the end.
        del self.headers["content-length"]
        self._events = events
        self._left = left
        self._pings = pings
        self._sending = False
        self._sent_s = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        tasks = [asyncio.ensure_future(step) for step in (self._write(), gone(receive))]
        self._pings.streams.add(self)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            self._pings.streams.discard(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._left()

    async def ping(self, silence_s: float) -> None:
        """Show a sign of life after a silence; never beside an event that is being sent."""
        if not self._sending and time.monotonic() - self._sent_s >= silence_s:
            await self._send_body(_PING)

    async def _write(self) -> None:
        async for event in self._events:
            await self._send_body(event)
        await self._send_body(b"", more=False)

    async def _send_body(self, body: bytes, more: bool = True) -> None:
        self._sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._sending, self._sent_s = False, time.monotonic()


class Pings:
    """One task for all open streams."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self.streams: set[EventStream] = set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._silence_s / 2)
            for stream in list(self.streams):
                await stream.ping(self._silence_s)


async def gone(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
