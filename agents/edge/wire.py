"""How a ClientApp talks to the trainer of its device: length, bytes, over a socket of the owner's.

The socket lies in a folder that only the device's owner may enter, which is its authentication.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from schemas.errors import DataInvalid, WorkerFailed

SOCKET_FILE = "trainer.sock"
OK = b"ok"
_LENGTH = struct.Struct("<Q")
_FRAME_BYTES_MAX = 1 << 30


def send(connection: socket.socket, *frames: bytes) -> None:
    """Sends frames, each with its length before it."""
    for frame in frames:
        connection.sendall(_LENGTH.pack(len(frame)))
        connection.sendall(frame)


def receive(connection: socket.socket) -> bytes:
    """The next frame. Raises DataInvalid where the other side has gone or sends no frame."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _FRAME_BYTES_MAX:
        raise DataInvalid(
            f"A frame of {length} bytes was announced.", "Run one version of Headwater."
        )
    return _exactly(connection, length)


def train(path: Path, work: bytes, adapter: bytes, timeout_s: float | None = None) -> bytes:
    """Has the trainer do `work` (a LocalWork in JSON) and gives its packed delta.

    Raises WorkerFailed where there is no trainer, or it refuses; the message says why.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            send(connection, work, adapter)
            status, payload = receive(connection), receive(connection)
    except OSError as error:
        raise WorkerFailed(
            f"The device's trainer does not answer: {error}.", "Is it up?"
        ) from error
    if status != OK:
        raise WorkerFailed(payload.decode(errors="replace"))
    return payload


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            raise DataInvalid("The other side ended in the midst of a frame.", "Try again.")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
