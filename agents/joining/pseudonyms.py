"""Who gave feedback, under a name that only the holder of a key can work out again."""

from __future__ import annotations

import hmac

from agents.settings import JoinSettings
from models.secret_file import open_secret
from schemas.errors import SettingsInvalid

_KEY_BYTES_MIN = 16
_DIGITS = 32


class Pseudonyms:
    """HMAC-SHA256 under a secret key, cut to 128 bits (RFC 2104, section 5)."""

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES_MIN:
            raise SettingsInvalid(
                f"The pseudonym key has {len(key)} bytes; {_KEY_BYTES_MIN} or more are needed.",
                "Make one with `openssl rand -hex 32`.",
            )
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(…)"

    def of(self, *, user: str | None, conversation: str | None, prompt: str) -> str:
        """The pseudonym of the user or, where none is named, of the conversation or the prompt.

        What is known of a person bounds what can be protected as one: see docs/PRIVACY.md. The
        kinds never meet: a conversation called like a user has another name.
        """
        kind, name = ("prompt", prompt)
        if user is not None:
            kind, name = ("user", user)
        elif conversation is not None:
            kind, name = ("conversation", conversation)
        digest = hmac.new(self._key, f"{kind}\0{name}".encode(), "sha256").hexdigest()
        return f"{kind}-{digest[:_DIGITS]}"


def open_pseudonyms(settings: JoinSettings) -> Pseudonyms:
    """With the key of the settings, else the one in their file, made there where there is none."""
    if settings.pseudonym_key is not None:
        return Pseudonyms(settings.pseudonym_key.get_secret_value().strip().encode())
    return Pseudonyms(open_secret(settings.pseudonym_key_file.expanduser(), "pseudonym key"))
