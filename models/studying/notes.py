"""All that a study knows, in one file that is replaced as a whole: a kill leaves old or new."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.durable import replace_file
from models.privacy.noise import Tensors
from models.studying.reservoir import Reservoir
from models.studying.texts import Text
from schemas.errors import DataInvalid, SettingsInvalid

_FILE = "study.safetensors"
_NOTES = "notes"


def study_file(folder: Path) -> Path:
    """The file of a study."""
    return folder / _FILE


class FolderLock:
    """A study's folder belongs to one process, until `close` or its end."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsInvalid where another process has it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise SettingsInvalid(
                f"Another process studies in {folder}.",
                "Stop it, or name another folder with HEADWATER_STUDY_FOLDER.",
            ) from error

    def close(self) -> None:
        """Gives the folder free."""
        os.close(self._descriptor)


class Made(msgspec.Struct, frozen=True):
    """A version that passed the gate. `folder` holds it; `parent` was live before."""

    version: str
    folder: str
    sha256: str
    parent: str
    made_ms: int
    evaluation: dict[str, float]


class Notes(msgspec.Struct):
    """What is not a tensor.

    `offsets` are the next to be read of each source. `waiting` were read and not studied yet;
    `fresh` are held out and never studied, newest last. `made` waits to be published. Until
    `rebuilt` is true a rebuild is under way: nothing is released yet, and what is live is no
    measure.
    """

    began_with: dict[str, str | int | float]
    reservoir: Reservoir
    offsets: dict[str, int] = {}
    waiting: list[Text] = []
    fresh: list[Text] = []
    lessons: int = 0
    judged: int = 0  # Lessons until the last judgement.
    studied: int = 0
    version_number: int = 0
    general_read: int = 0
    made: Made | None = None
    rebuilt: bool = True


def write_notes(path: Path, notes: Notes, tensors: Tensors) -> None:
    """Replaces the file at `path`, durable before this returns."""
    journal = torch.frombuffer(bytearray(msgspec.json.encode(notes)), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, save(tensors | {_NOTES: journal}))


def read_notes(path: Path) -> tuple[Notes, Tensors] | None:
    """What `write_notes` wrote last; None where there is nothing. Raises DataInvalid."""
    if not path.exists():
        return None
    try:
        tensors = load(path.read_bytes())
        journal = bytes(tensors.pop(_NOTES).tolist())
        return msgspec.json.decode(journal, type=Notes), tensors
    except (OSError, KeyError, SafetensorError, msgspec.DecodeError) as error:
        raise DataInvalid(
            f"{path} holds no study: {error}.",
            "Move it away; `headwater agent study` begins anew from the passages there are.",
        ) from error


def begin_again(folder: Path) -> Notes:
    """Forgets all that was studied in `folder`; what the topic still has is read from its start.

    Numbers of versions go on. Raises SettingsInvalid while a process studies there, DataInvalid.
    """
    lock = FolderLock(folder)
    try:
        found = read_notes(study_file(folder))
        number = found[0].version_number if found else 0
        notes = Notes({}, Reservoir(0), version_number=number, rebuilt=False)
        write_notes(study_file(folder), notes, {})
        return notes
    finally:
        lock.close()
