"""API keys: a file of hashes, which the command line writes and every gateway reads."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from schemas.clock import now_ms
from schemas.errors import SettingsInvalid

log = logging.getLogger("headwater.gateway")

SCOPES: Final = ("documents", "operator")
PREFIX: Final = "hw-"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LOOK_AGAIN_S: Final = 1.0


class ApiKey(msgspec.Struct, frozen=True):
    """A key without its secret. Every key may ask and give feedback; `scopes` allow more."""

    name: str
    sha256: str
    created_ms: int
    scopes: list[str] = []
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


class _Content(msgspec.Struct):
    keys: list[ApiKey] = []


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in a file; none where there is no file. Raises SettingsInvalid."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Content).keys
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise SettingsInvalid(
            f"{path} holds no API keys: {error}.", "Remove it and add the keys anew."
        ) from None


def add_key(
    path: Path,
    name: str,
    scopes: list[str],
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
) -> str:
    """Add a key; returns its secret, which is kept nowhere. Raises SettingsInvalid."""
    keys = read_keys(path)
    if not _NAME.fullmatch(name):
        raise SettingsInvalid(
            f"{name!r} is no name for a key.", "Use up to 40 of a-z, 0-9 and -, no - first."
        )
    if any(key.name == name for key in keys):
        raise SettingsInvalid(f"There is a key {name!r} already.", "Choose another name.")
    # 256 random bits: nothing to guess, so a fast hash protects them.
    secret = PREFIX + secrets.token_urlsafe(32)
    created_ms = now_ms()
    key = ApiKey(name, _digest(secret), created_ms, scopes, requests_per_minute, tokens_per_day)
    _write(path, [*keys, key])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key; gateways notice within a second. Raises SettingsInvalid."""
    keys = read_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        names = ", ".join(key.name for key in keys) or "none"
        raise SettingsInvalid(f"There is no key {name!r}.", f"The keys: {names}.")
    _write(path, left)


class Keys:
    """The keys as a gateway knows them: it reads the file again when that has changed."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsInvalid for a file that holds no keys."""
        self._path = path
        self._by_digest: dict[str, ApiKey] = {}
        self._seen: tuple[int, int] | None = None
        self._next_look_s = 0.0
        self.required = False
        self._read()

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret. What is looked up is its hash, so time tells nothing of it."""
        self.look()
        return self._by_digest.get(_digest(secret))

    def look(self) -> None:
        """Take account of what the command line did; a broken file leaves the keys as they were."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_AGAIN_S
        try:
            self._read()
        except (SettingsInvalid, OSError) as error:
            log.error("the API keys stay as they are: %s", error)

    def _read(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            # Where keys were needed once they are needed until somebody starts the gateway anew.
            self._by_digest = {}
            return
        self.required = True
        if self._seen != (seen := (found.st_mtime_ns, found.st_ino)):
            self._by_digest = {key.sha256: key for key in read_keys(self._path)}
            self._seen = seen


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _write(path: Path, keys: list[ApiKey]) -> None:
    """At once or not at all, and readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(_Content(keys)), indent=1))
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
