"""Lanes: schedulers over the same weights, each with a thread and memory of its own.

Within a pass, the threads of one team wait for each other some thousand times, and each is kept
waiting by whatever keeps one of them. Lanes wait for nobody. They read the weights once each,
though, so they pay where a processor takes longer to multiply than to read (docs/LOG.md).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final

import torch

from models.engine.llama import Llama
from models.engine.metrics import EngineMetrics
from models.engine.protocol import Piece
from models.engine.scheduler import Scheduler
from models.engine.sequence import Sequence as Request
from models.engine.versions import Versions
from schemas.errors import GenerationFailed

log = logging.getLogger(__name__)

Outbox = asyncio.Queue[Piece | GenerationFailed]
# What one step has made, for whom.
Made = list[tuple[Outbox, Piece]]


class Lane:
    """One scheduler. `submit` and `stop` may be called from any thread; the rest is its own's."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler: Final = scheduler
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._made: Made = []

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return self._inbox.qsize() + len(self.scheduler.waiting)

    def submit(self, request: Request, outbox: Outbox) -> None:
        """The request's pieces will go to `outbox`."""
        request.send = lambda piece: self._made.append((outbox, piece))
        self._inbox.put(request)

    def stop(self) -> None:
        """Before the next step, whatever is open."""
        self._inbox.put(None)

    def run(self, prepare: Callable[[], None], hand_over: Callable[[Made], None]) -> None:
        """Steps until `stop`. Calls `prepare` before each, and `hand_over` with all that it made at
        once: to wake the event loop for each piece slows both threads."""
        while self._receive():
            prepare()
            self.scheduler.step()
            if self._made:
                made, self._made = self._made, []
                hand_over(made)

    def _receive(self) -> bool:
        """Takes new requests in, waits for one when there is nothing to do; False to stop."""
        wait = self.scheduler.idle
        while True:
            try:
                request = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if request is None:
                return False
            self.scheduler.waiting.append(request)
            wait = False


class Lanes:
    """Where requests go: the lane with the fewest, the first one if there is a choice."""

    def __init__(
        self,
        schedulers: Sequence[Scheduler],
        threads: int,
        prompt_tokens_step: int,
        hand_over: Callable[[Made], None],
    ) -> None:
        """All lanes together compute with `threads` threads."""
        self._lanes = [Lane(scheduler) for scheduler in schedulers]
        # They share these.
        self.model: Final[Llama] = schedulers[0].model.model
        self.versions: Final[Versions] = schedulers[0].versions
        self.metrics: Final[EngineMetrics] = schedulers[0].metrics
        self._threads = threads
        self._share = max(1, threads // len(self._lanes))
        self._prompt_tokens_step = prompt_tokens_step
        self._hand_over = hand_over

    @property
    def running(self) -> int:
        return sum(lane.running for lane in self._lanes)

    @property
    def waiting(self) -> int:
        return sum(lane.waiting for lane in self._lanes)

    @property
    def kv_usage(self) -> float:
        """The share of the memory for keys and values that running requests hold."""
        memories = [lane.scheduler.model.kv for lane in self._lanes]
        return sum(kv.held_tokens for kv in memories) / sum(kv.tokens_max for kv in memories)

    def submit(self, request: Request, outbox: Outbox) -> None:
        """The request's pieces will go to `outbox`."""
        lane = min(self._lanes, key=lambda lane: lane.running + lane.waiting)
        lane.submit(request, outbox)

    def stop(self) -> None:
        """All lanes end before their next step."""
        for lane in self._lanes:
            lane.stop()

    def run(self) -> None:
        """Runs the first lane in this thread and the others in theirs, until `stop` or until one of
        them fails; then all have ended."""
        others = [
            threading.Thread(
                target=self._run_other, args=(lane,), name=f"headwater-lane-{number}", daemon=True
            )
            for number, lane in enumerate(self._lanes[1:], start=1)
        ]
        for thread in others:
            thread.start()
        try:
            self._lanes[0].run(self._share_threads, self._hand_over)
        finally:
            self.stop()
            for thread in others:
                thread.join()

    @torch.inference_mode()
    def _run_other(self, lane: Lane) -> None:
        # The first use of torch in a thread takes over what another one set last.
        torch.get_num_threads()
        try:
            # A second team would slow the first one down for good (docs/LOG.md), so it gets its
            # share also while the first lane has nothing to do.
            lane.run(lambda: self._use(lane, self._share), self._hand_over)
        except Exception:
            log.exception("a lane of the engine ends")
        finally:
            self.stop()

    def _share_threads(self) -> None:
        """The first lane has all threads while it is alone."""
        alone = all(lane.scheduler.idle for lane in self._lanes[1:])
        self._use(self._lanes[0], self._threads if alone else self._share)

    def _use(self, lane: Lane, threads: int) -> None:
        """A lane with half of the threads reads half of a step's prompts, in about the time."""
        # For each step, since MKL has one number for all threads of the process.
        torch.set_num_threads(threads)
        step = self._prompt_tokens_step * threads // self._threads
        lane.scheduler.prompt_tokens_step = max(1, step)
