"""Several replays of one stream at once, each in a process with its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Final

import psutil
import torch

from infra.evaluation.learning import Report, Setting, replay, static_scores
from models.cache import user_cache_dir
from models.engine.load import Loaded, load
from models.learning.e2e import Described
from models.learning.examples import TrainingExample
from schemas.errors import WorkerFailed

# What a replay through the default model takes at its worst.
_REPLAY_BYTES: Final = 5 * 2**30
# Batches differ in length, and glibc's heap would keep twice of what they need.
_HEAP: Final = {"MALLOC_MMAP_THRESHOLD_": f"{32 << 20}", "MALLOC_TRIM_THRESHOLD_": f"{128 << 20}"}
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stream:
    """What all replays have in common. `model` and `dtype` as the settings name them."""

    corrections: Sequence[TrainingExample]
    questions: Sequence[Described]
    model: str = "smollm2"
    dtype: str = "auto"


def jobs_max(runs: int) -> int:
    """How many of `runs` this machine has cores and memory for; one on a GPU."""
    if torch.cuda.is_available():
        return 1
    fitting: int = psutil.virtual_memory().total // _REPLAY_BYTES
    return max(1, min(runs, os.cpu_count() or 1, fitting))


class Replays:
    """Gives out the work. Made by `replays`."""

    def __init__(self, pool: ProcessPoolExecutor, cohorts_done: Synchronized[int]) -> None:
        self._pool = pool
        self._cohorts_done = cohorts_done

    def static(self) -> dict[str, float]:
        """The scores of the model before it learns anything."""
        with _worker_failures():
            return self._pool.submit(_static).result()

    def run(
        self, settings: Sequence[Setting], static: dict[str, float], report: Report, cohorts: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The number of each setting and its replay, as they end.

        `report` is told cohorts done and `cohorts`, those of all. Raises WorkerFailed.
        """
        numbers = {self._pool.submit(_replay, s, static): n for n, s in enumerate(settings)}
        running = set(numbers)
        while running:
            ended, running = wait(running, _LOOK_S)
            report(self._cohorts_done.value, cohorts)
            for future in ended:
                with _worker_failures():
                    yield numbers[future], future.result()


@contextmanager
def replays(stream: Stream, jobs: int) -> Iterator[Replays]:
    """`jobs` processes, which end with the block, whatever they do."""
    context = multiprocessing.get_context("spawn")
    cohorts_done = context.Value("q", 0)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    before = set(multiprocessing.active_children())
    os.environ.update(_HEAP)
    pool = ProcessPoolExecutor(jobs, context, _begin, (stream, threads, cohorts_done))
    try:
        yield Replays(pool, cohorts_done)
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _worker_failures() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerFailed(
            "A process that replays corrections ended before its time.",
            "It may have run out of memory: give --jobs 1, or a smaller --cohort.",
        ) from error


# What a process of the pool holds.
_loaded: Loaded
_stream: Stream
_done: Synchronized[int]


def _begin(stream: Stream, threads: int, cohorts_done: Synchronized[int]) -> None:
    global _loaded, _stream, _done
    # Ctrl-C reaches all processes of a terminal; the first one says what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Of Opacus' hooks on modules whose inputs want no gradients: it says so for each batch.
    warnings.filterwarnings("ignore", "Full backward hook")
    torch.set_num_threads(threads)
    _loaded = load(stream.model, user_cache_dir(), "auto", stream.dtype)
    _stream, _done = stream, cohorts_done


def _static() -> dict[str, float]:
    return static_scores(_loaded, _stream.questions)


def _replay(setting: Setting, static: dict[str, float]) -> dict[str, Any]:
    def report(_done_here: int, _all: int) -> None:
        with _done.get_lock():
            _done.value += 1

    return replay(_loaded, _stream.corrections, _stream.questions, setting, static, report=report)
