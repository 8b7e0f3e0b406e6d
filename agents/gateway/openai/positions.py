"""The ids of streamed events: where a reader is, so that any gateway can go on from there.

An id says where the answer's chunks are in Kafka and how much of each choice was sent, counted in
characters with a digest of them. So it does not matter how another attempt cut its chunks, and an
answer that was worded anew is noticed. It is signed together with the caller and the request: no
other key, and no other request, can use it (HMAC-SHA256, RFC 2104, cut to 128 bits).
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from agents.gateway.errors import ApiError
from agents.gateway.settings import GatewaySettings
from models.secret_file import open_secret
from schemas.errors import SettingsInvalid
from schemas.topics import TOKENS
from streams.producer import Delivered

_SIGNATURE_BYTES: Final = 16
_SECRET_BYTES_MIN: Final = 16


class Sent(msgspec.Struct, array_like=True, frozen=True):
    """How much of one choice was sent; `digest` is of those characters."""

    chars: int = 0
    logprobs: int = 0
    digest: bytes = b""


class Position(msgspec.Struct, array_like=True, frozen=True):
    """`place` is partition and offset in `tokens`, `prompted` in `prompts`; `ended` counts the
    events sent after the last text."""

    prompt_id: str
    created_s: int
    place: tuple[int, int]
    prompted: tuple[int, int]
    sent: tuple[Sent, ...]
    ended: int = 0

    @property
    def delivered(self) -> Delivered:
        """Where the prompt is."""
        return Delivered(*self.prompted)


class Signer:
    """Makes ids of one caller's request, and reads them back; a position for each prompt."""

    def __init__(self, secret: bytes, caller: str, request: bytes) -> None:
        """`request` is what the caller asked, in a form that is the same each time."""
        self._secret = secret
        self._bound = sha256(b"%b\0%b" % (caller.encode(), request)).digest()

    def encode(self, positions: Sequence[Position]) -> str:
        """The id of an event after which a reader is at these positions."""
        content = _ENCODER.encode(positions)
        return base64.urlsafe_b64encode(self._signature(content) + content).decode()

    def decode(self, event_id: str) -> list[Position]:
        """Raises ApiError for what this caller was not given for this request."""
        try:
            raw = base64.urlsafe_b64decode(event_id.encode())
            signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._signature(content)):
                raise ValueError("signature")
            positions = _DECODER.decode(content)
        except (ValueError, msgspec.DecodeError):
            message = "Last-Event-ID is not of this request and key."
            raise ApiError(404, message, "invalid_event_id", "Last-Event-ID") from None
        age_ms = (time.time() - positions[0].created_s) * 1000
        if age_ms > (TOKENS.retention_ms or 0):
            message = "What Last-Event-ID names is no longer kept. Ask again."
            raise ApiError(404, message, "expired_event_id", "Last-Event-ID")
        return positions

    def _signature(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, self._bound + content, "sha256")[:_SIGNATURE_BYTES]


def open_stream_secret(settings: GatewaySettings) -> bytes:
    """The secret of the settings, else the one in their file. Raises SettingsInvalid."""
    given = settings.stream_key
    if given is not None:
        secret = given.get_secret_value().strip().encode()
        if len(secret) < _SECRET_BYTES_MIN:
            raise SettingsInvalid(
                f"HEADWATER_GATEWAY_STREAM_KEY has {len(secret)} bytes; "
                f"{_SECRET_BYTES_MIN} or more are needed.",
                "Make one with `openssl rand -hex 32`.",
            )
        return secret
    return open_secret(settings.stream_key_file.expanduser(), "stream key")


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[Position])
