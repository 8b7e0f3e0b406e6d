"""How far a round's training has come: in a file, for `headwater edge join` to show."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

_FILE: Final = "progress.json"


class Progress(msgspec.Struct, frozen=True):
    """`done` of all `steps` of a round."""

    round_id: str
    done: int
    steps: int


class Progressing:
    """The file exists within the block, however the training ends."""

    def __init__(self, folder: Path, round_id: str, steps: int) -> None:
        self._path = folder / _FILE
        self._now = Progress(round_id, 0, steps)

    def step(self) -> None:
        """One more is done."""
        self._now = msgspec.structs.replace(self._now, done=self._now.done + 1)
        self._write()

    def __enter__(self) -> Progressing:
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self._now))
        partial.rename(self._path)


def read_progress(folder: Path) -> Progress | None:
    """What trains now; None between rounds."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Progress)
    except FileNotFoundError:
        return None
