"""A relay that counts the bytes of TCP connections, encryption and framing included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_READ_BYTES = 1 << 16


class WireMeter:
    """`sent_bytes` went to the target, `received_bytes` came from it."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.sent_bytes = 0
        self.received_bytes = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Relays connections to `port` on loopback."""
        server = await asyncio.start_server(self._relay, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            for writer in self._writers:
                writer.close()

    async def _relay(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far, forth = await asyncio.open_connection(self._host, self._port)
            self._writers |= {back, forth}
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._up(near, forth))
                    both.create_task(self._down(far, back))
            except* OSError:
                # One side has gone; so goes the other.
                pass
            finally:
                forth.close()
                back.close()
                self._writers -= {back, forth}

    async def _up(self, near: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        while data := await near.read(_READ_BYTES):
            self.sent_bytes += len(data)
            forth.write(data)
            await forth.drain()
        forth.close()

    async def _down(self, far: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await far.read(_READ_BYTES):
            self.received_bytes += len(data)
            back.write(data)
            await back.drain()
        back.close()
