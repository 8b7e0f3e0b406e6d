"""Curves as TensorBoard reads them: one folder for each run, one record for each step."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
        RecordWriter,
    )


class TensorBoardFiles:
    """Adds steps that the files do not have yet. Not for several threads.

    A process writes files of its own, so what a killed one left half-written harms nobody.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[BinaryIO, RecordWriter, set[int]]] = {}

    def write(self, run: str, step: int, at_ms: int, values: Mapping[str, float]) -> None:
        """One point of each curve of a run. Raises OSError."""
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        file, writer, steps = self._writer(run)
        if step in steps or not values:
            return
        summary = Summary(
            value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        event = Event(wall_time=at_ms / 1000, step=step, summary=summary)
        writer.write(event.SerializeToString())
        file.flush()
        steps.add(step)

    def close(self) -> None:
        for file, _, _ in self._open.values():
            file.close()
        self._open.clear()

    def _writer(self, run: str) -> tuple[BinaryIO, RecordWriter, set[int]]:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        if run not in self._open:
            folder = self._folder / run.replace(os.sep, "_")
            folder.mkdir(parents=True, exist_ok=True)
            steps = read_steps(folder)
            # The name that TensorBoard looks for; another process would use another number.
            path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            file = path.open("wb")
            writer = RecordWriter(file)
            writer.write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
            self._open[run] = file, writer, steps
        return self._open[run]


def read_steps(folder: Path) -> set[int]:
    """The steps that a run's files have."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # type: ignore[import-untyped]

    return {
        event.step
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for event in EventFileLoader(str(path)).Load()
        if event.HasField("summary")
    }
