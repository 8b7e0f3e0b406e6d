"""The examples that all candidates learn from next, durable before any of them begins.

They are written down, and not only their offsets: after a crash a topic of several partitions may
be read in another order, and candidates would no longer learn from the same examples.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.durable import replace_file
from models.learning.examples import TrainingExample
from schemas.errors import DataInvalid


class Chunk(msgspec.Struct, frozen=True):
    """`offsets` are the next to be read of each source, once the chunk is done."""

    number: int
    examples: tuple[TrainingExample, ...]
    offsets: dict[str, int]


def write_chunk(path: Path, chunk: Chunk) -> None:
    """Replaces the chunk before, as a whole or not at all; for its owner alone to read."""
    replace_file(path, msgspec.json.encode(chunk))


def read_chunk(path: Path) -> Chunk | None:
    """The last chunk; None where there is none yet. Raises DataInvalid for another file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Chunk)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise DataInvalid(
            f"{path} holds no chunk of examples: {error}.",
            "Begin a tuning of another name; what this one spent stays in its ledger.",
        ) from error
