"""Secrets in files that their owner alone may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from models.durable import sync_folder
from schemas.errors import SettingsInvalid

SECRET_BYTES = 32


def open_secret(path: Path, what: str) -> bytes:
    """The secret in `path`, made there (readable by its owner alone) where there is none.

    `what` names it in messages. Raises SettingsInvalid for a file that others may read.
    """
    try:
        _write_new(path, secrets.token_bytes(SECRET_BYTES))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise SettingsInvalid(
                f"Others may read the {what} {path}.", f"Run `chmod 600 {path}`."
            ) from None
    return path.read_bytes()


def _write_new(path: Path, content: bytes) -> None:
    """Durable before it is used: what a lost secret made could not be made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
