"""What went wrong at the server, whose fault it is, and whether to ask again."""

from __future__ import annotations

import random
import time
from typing import Any, Final

import msgspec

from schemas.errors import EventInvalid, GenerationFailed, HeadwaterError

MESSAGE_CHARS_MAX: Final = 500
_BUSY: Final = {408, 425, 429, 502, 503, 504}
_PAUSE_S_FIRST: Final = 0.25
_PAUSE_S_MAX: Final = 8.0


class ServerFault(GenerationFailed):
    """The server failed at a request, or could not be asked.

    `transient`: the same request may succeed a moment later. `down`: no request would do better, so
    that it is no answer to this one. `not_served`: the server has no such model (any more).
    """

    def __init__(
        self,
        message: str,
        remedy: str = "Ask again; the server's log says more.",
        transient: bool = True,
        down: bool = False,
        not_served: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message, remedy)
        self.transient = transient
        self.down = down
        self.not_served = not_served
        self.retry_after_s = retry_after_s


def fault_of_status(status: int, said: str, retry_after_s: float = 0.0) -> HeadwaterError:
    """The error that an HTTP status stands for; `said` is the server's own message."""
    if status in (401, 403):
        # Not the server's message: it may repeat a part of the key.
        return ServerFault(
            f"The server refused the API key (status {status}).",
            "Set HEADWATER_GENERATE_REMOTE_API_KEY to a key that may use the model.",
            transient=False,
            down=True,
        )
    if status in _BUSY:
        return ServerFault(
            f"The server is busy or not ready (status {status}): {said}",
            "Wait, lower HEADWATER_GENERATE_REMOTE_REQUESTS_MAX, or give it more replicas.",
            down=True,
            retry_after_s=retry_after_s,
        )
    if status in (404, 405) or 300 <= status < 400:
        return ServerFault(
            f"The server does not serve this address or model (status {status}): {said}",
            "Check HEADWATER_GENERATE_REMOTE_URL, which ends in /v1, and _REMOTE_MODEL.",
            transient=False,
            down=True,
            not_served=status == 404,
        )
    if 400 <= status < 500:
        return EventInvalid(f"The server refused the request: {said}", "Correct the request.")
    return ServerFault(f"The server failed (status {status}): {said}")


def server_message(body: bytes) -> str:
    """What an error's body says, in any of the shapes that servers give it."""
    try:
        said: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        said = body.decode(errors="replace")
    # OpenAI and vLLM: {"error": {"message": …}}; older vLLM: {"message": …}; FastAPI: {"detail": …}
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):
            said = said[name]
    text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return " ".join(text.split())[:MESSAGE_CHARS_MAX] or "it said nothing more"


class Backoff:
    """Pauses that double, each shortened at random so that many askers do not come together."""

    def __init__(self, for_s: float) -> None:
        self._until_s = time.monotonic() + for_s
        self._pause_s = _PAUSE_S_FIRST

    def next_s(self, at_least_s: float = 0.0) -> float | None:
        """The next pause, or None when it would end too late."""
        pause_s = max(at_least_s, self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        return pause_s if time.monotonic() + pause_s <= self._until_s else None
