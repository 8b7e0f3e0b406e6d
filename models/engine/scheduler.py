"""Who runs when. Tensors are elsewhere (`batch_model`), text too (`sequence`).

A step is one pass over one token of every request that decodes, and over as many tokens of prompts
as the step has room for: a long prompt is read in pieces and no stream waits for it. Guesses at the
next tokens are read too, while few requests decode, for they cost little then. Requests start in
the order of their arrival. When memory runs out, the one that started last gives its place up and
starts again later, from the tokens that it had.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import Final

import torch

from models.engine.batch_model import BatchModel, Work
from models.engine.metrics import EngineMetrics
from models.engine.sampling import Chosen, choose_tokens
from models.engine.sequence import Sequence
from models.engine.versions import Versions

log = logging.getLogger(__name__)

# Up to so many rows, one more takes a quarter of a row's share of the pass, and half of the guesses
# at what comes next are right: measured in float32 (docs/LOG.md).
ROWS_WITH_GUESSES_MAX: Final = 48


@dataclass(slots=True)
class _End:
    """A request whose known tokens are all read: the row of the logits after them, and guesses
    whose logits are behind."""

    sequence: Sequence
    row: int
    guesses: list[int]

    def guess_was_right(self) -> bool:
        """Goes on to the logits behind the next guess, if that is the token that was chosen."""
        if self.sequence.held is None or not self.guesses:
            return False
        self.row += 1
        return self.guesses.pop(0) == self.sequence.tokens[-1]


class Scheduler:
    """Belongs to one thread, which is in torch's inference mode. Of another's, only `model.model`,
    `versions` and `metrics` may be the same."""

    def __init__(
        self,
        model: BatchModel,
        versions: Versions,
        ends: frozenset[int],
        slots: int,
        prompt_tokens_step: int,
        guesses_max: int,
        metrics: EngineMetrics,
    ) -> None:
        self.model = model
        self.versions = versions
        self.ends = ends
        self.slots = slots
        self.prompt_tokens_step = prompt_tokens_step
        self.guesses_max = guesses_max
        self.waiting: deque[Sequence] = deque()
        # In the order in which they started.
        self.running: list[Sequence] = []
        self.metrics = metrics

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def step(self) -> None:
        """One token for everybody who decodes, and some of a prompt."""
        self._drop_cancelled()
        self._admit()
        self._make_room()
        works = self._plan()
        if works:
            self._run(works)

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in self.running if s.cancelled]:
            self._finish(sequence)
        if any(s.cancelled for s in self.waiting):
            for sequence in [s for s in self.waiting if s.cancelled]:
                self._leave(sequence)
            self.waiting = deque(s for s in self.waiting if not s.cancelled)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            sequence = self.waiting[0]
            held = self.model.kv.admit(len(sequence.tokens))
            if held is None:
                return
            self.waiting.popleft()
            sequence.held = held
            try:
                self._start(sequence)
            except Exception as error:
                self._fail([sequence], error)
                continue
            self.running.append(sequence)

    def _start(self, sequence: Sequence) -> None:
        # One that was preempted goes on with the version that it began with.
        if not sequence.started:
            sequence.version = self.versions.start(sequence.adapter, sequence.version)
            sequence.started = True
            sequence.started_s = time.monotonic()
            self.metrics.queue_s.observe(sequence.started_s - sequence.arrived_s)

    def _make_room(self) -> None:
        """A place for the next token of every row, at the cost of those that started last."""
        for sequence in list(self.running):
            held = sequence.held
            if held is None or held.stage is not None or held.read < held.arena.row_tokens:
                continue
            while sequence.held is not None and not self.model.kv.grow(held):
                self._preempt(self.running[-1])

    def _preempt(self, sequence: Sequence) -> None:
        assert sequence.held is not None
        self.running.remove(sequence)
        self.model.kv.release(sequence.held)
        sequence.held = None
        self.waiting.appendleft(sequence)
        self.metrics.preemptions.inc()

    def _plan(self) -> list[Work]:
        works = []
        left = self.prompt_tokens_step
        guesses_left = self._guesses_left()
        for sequence in self.running:
            held, version = sequence.held, sequence.version
            assert held is not None and version is not None
            if held.stage is not None and left > 0 and held.read == 0:
                held.read = self.model.kv.prefixes.load(version, sequence.tokens, held.stage)
                self.metrics.prefix_tokens.inc(held.read)
                self.metrics.prefix_queries.inc(len(sequence.tokens))
            count = 1 if held.stage is None else min(left, sequence.unread)
            if held.stage is not None:
                left -= count
            if count:
                tokens = sequence.tokens[held.read : held.read + count]
                ends = count == sequence.unread
                guesses = self._guesses(sequence, guesses_left)
                guesses_left -= len(guesses)
                slot = self.versions.slot(version)
                works.append(Work(held, [*tokens, *guesses], slot, ends, len(guesses)))
        return works

    def _guesses_left(self) -> int:
        """How many guesses the next pass has room for: rows that decode alone keep their narrow
        weights, if they have any."""
        rows = sum(s.held is not None and s.held.stage is None for s in self.running)
        narrow = self.model.model.narrow_rows_max
        if rows == len(self.running) <= narrow:
            return narrow - rows
        return max(0, ROWS_WITH_GUESSES_MAX - rows)

    def _guesses(self, sequence: Sequence, left: int) -> Listed[int]:
        """At what comes after the last token, where its row has room for them."""
        held = sequence.held
        assert held is not None
        if held.stage is not None:
            return ()
        wanted = sequence.max_tokens - sequence.completion_tokens - 1
        room = held.arena.row_tokens - held.read - 1
        count = min(self.guesses_max, left, wanted, room)
        return sequence.lookup.guess(sequence.tokens, count) if count > 0 else ()

    def _run(self, works: list[Work]) -> None:
        owners = {id(s.held): s for s in self.running}
        began_s = time.monotonic()
        try:
            ended, logits = self.model.run(works)
            ends = _ends(ended, owners)
            chosen = self._choose([end.sequence for end in ends], logits, [e.row for e in ends])
        except Exception as error:
            # Keys and values may be half written: nobody who took part can go on.
            self._fail([owners[id(work.held)] for work in works], error)
            return
        self.metrics.step(works, time.monotonic() - began_s)
        for sequence, token in chosen:
            self._advance(sequence, token)
        self.metrics.draft_tokens.inc(sum(work.guesses for work in works))
        self._check_guesses([end for end in ends if end.guesses], logits)

    def _check_guesses(self, ends: list[_End], logits: torch.Tensor) -> None:
        """One more token of logits (n, V) for each guess that was right: the same tokens as one by
        one, whatever a request's wishes are."""
        guessed = list(ends)
        while ends := [end for end in ends if end.guess_was_right()]:
            self.metrics.accepted_tokens.inc(len(ends))
            try:
                chosen = self._choose([e.sequence for e in ends], logits, [e.row for e in ends])
            except Exception as error:
                self._fail([end.sequence for end in ends], error)
                break
            for sequence, token in chosen:
                self._advance(sequence, token)
        for end in guessed:
            # Keys and values of wrong guesses are overwritten. Not before all have advanced: a row
            # that moves into a gap takes along what was read of it.
            if end.sequence.held is not None:
                end.sequence.held.read = len(end.sequence.tokens) - 1

    def _choose(
        self, sequences: list[Sequence], logits: torch.Tensor, rows: list[int]
    ) -> list[tuple[Sequence, Chosen]]:
        """A token for each by its row of logits (n, V); one whose wishes cannot be met fails."""
        if not sequences:
            return []
        try:
            wanted = logits if len(rows) == len(logits) else logits[rows]
            chosen = choose_tokens(wanted, [s.sampler for s in sequences])
            return list(zip(sequences, chosen, strict=True))
        except Exception as error:
            if any(s.sampler.taken > s.completion_tokens for s in sequences):
                # Some have taken their token in already: choosing again would be a second draw.
                raise
            if len(sequences) == 1:
                self._fail(sequences, error)
                return []
        # One of them is at fault, and the others must not pay for it.
        return [
            pair
            for row, sequence in zip(rows, sequences, strict=True)
            for pair in self._choose([sequence], logits, [row])
        ]

    def _advance(self, sequence: Sequence, token: Chosen) -> None:
        held, version = sequence.held, sequence.version
        assert held is not None and version is not None
        self.metrics.token(sequence)
        try:
            reason = sequence.advance(token, self.ends)
        except Exception as error:
            self._fail([sequence], error)
            return
        if reason is not None:
            self.metrics.finished(sequence, reason)
            self._finish(sequence)
        elif held.stage is not None:
            self.model.kv.prefixes.store(version, sequence.prompt, held.stage)
            self.model.kv.settle(held)

    def _fail(self, sequences: Listed[Sequence], error: Exception) -> None:
        log.error("generation failed: %s", error, exc_info=error)
        for sequence in sequences:
            self.metrics.finished(sequence, "error")
            sequence.fail(error)
            self._finish(sequence)

    def _finish(self, sequence: Sequence) -> None:
        if sequence in self.running:
            self.running.remove(sequence)
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.held is not None:
            self.model.kv.release(sequence.held)
            sequence.held = None
        if sequence.started and sequence.version is not None:
            self.versions.end(sequence.version)
            sequence.started = False


def _ends(works: Listed[Work], owners: Mapping[int, Sequence]) -> list[_End]:
    """Of works that end, in the order of their logits."""
    ends: list[_End] = []
    row = 0
    for work in works:
        guesses = list(work.tokens[len(work.tokens) - work.guesses :])
        ends.append(_End(owners[id(work.held)], row, guesses))
        row += 1 + work.guesses
    return ends
