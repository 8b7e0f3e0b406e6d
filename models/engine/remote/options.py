"""Settings of the remote engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from schemas.errors import SettingsInvalid

# Whose words a server speaks; "auto" asks it.
Server = Literal["auto", "vllm", "llama-cpp-python", "openai"]


@dataclass(frozen=True, slots=True)
class RemoteEngineOptions:
    """Which server answers, and how patient we are with it. Raises SettingsInvalid.

    `url` goes up to and includes `/v1`. `model` "" takes the only one served. `tokenizer`, a folder
    or name like a local model's, makes token counts exact; "" estimates them. `retry_for_s` bounds
    the time in which a request is sent again; nothing is once its first text has come.
    """

    url: str
    # Kept out of the repr: options may be logged.
    api_key: str = field(default="", repr=False)
    model: str = ""
    server: Server = "auto"
    tokenizer: str = ""
    cache_dir: Path = Path(".headwater/cache")
    context_tokens_max: int = 2048
    requests_max: int = 64
    start_timeout_s: float = 120.0
    connect_timeout_s: float = 5.0
    first_token_timeout_s: float = 120.0
    token_timeout_s: float = 30.0
    retry_for_s: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsInvalid(
                f"{self.url!r} is no address of a server.",
                "Give one such as http://localhost:8000/v1.",
            )
        if parts.username or parts.password:
            raise SettingsInvalid(
                "The server's address holds a login, which would be logged.",
                "Leave it out of the address, and give the server's key as the API key.",
            )
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise SettingsInvalid(
                "The API key holds a line break or another character that no header may hold.",
                "Copy it again, without what surrounds it.",
            )
