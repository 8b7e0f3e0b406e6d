"""All candidates of a tuning, from wherever their ledger says: examples in, rungs out. No Kafka.

Everything in here belongs to one thread: the ledger's database allows no other. State is the
ledger, which holds each candidate's rounds and weights, and the open chunk. Killed at any moment,
what is there goes on, and comes to the same end:
1. the next examples are written down as a chunk, with the offsets after them,
2. each candidate that is left does its rounds of the chunk, each in a transaction of its own,
3. where that ends a rung, the ledgers' rounds say who stays.
"""

from __future__ import annotations

import threading

import msgspec

from agents.learning.paths import gate_set_path
from agents.settings import LearnSettings
from agents.tuning.chunk import Chunk, read_chunk, write_chunk
from agents.tuning.contestant import Contestant
from agents.tuning.rules import TuningRules, tuning_folder
from models.engine.load import load
from models.learning.examples import TrainingExample
from models.learning.gate import read_questions
from models.learning.tuning import Candidate, RungResult, results
from models.privacy.ledger_store import LedgerStore


class Contest:
    """One tuning. Raises SettingsInvalid for one that is not accounted for, LedgerBroken where the
    tuning of this name began otherwise."""

    def __init__(self, settings: LearnSettings, model: str, rules: TuningRules) -> None:
        rules.check(settings)
        self._rules = rules
        self.schedule = rules.schedule
        self._private = rules.private(settings)
        self._questions = read_questions(gate_set_path(settings)) if self._private else []
        loaded = load(model, settings.cache_dir, settings.device, settings.dtype)
        folder = tuning_folder(settings, rules.name)
        self._chunk_path = folder / "chunk.json"
        self._store = LedgerStore(folder / "ledger.db")
        # All of them, before the first example: what they may spend together is promised by then.
        self.contestants = [
            Contestant(
                f"{rules.name}.{number}",
                self._store,
                rules.settings_of(candidate, settings),
                loaded,
                model,
                folder,
                rules.promised(settings),
            )
            for number, candidate in enumerate(rules.candidates)
        ]
        self._chunk = read_chunk(self._chunk_path)
        self._offsets = dict(self._chunk.offsets) if self._chunk else {}
        self._open: list[TrainingExample] = []
        self._stopped = threading.Event()
        self._seen = {u for c in self.contestants for r in c.rounds for u in r.users}
        self._seen |= {example.user for example in self._chunk.examples} if self._chunk else set()
        self.results = self._results()

    @property
    def name(self) -> str:
        return self._rules.name

    @property
    def guarded(self) -> bool:
        """Whether its examples are those that the guard lets through."""
        return self._rules.guarded

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self._rules.candidates

    @property
    def offsets(self) -> dict[str, int]:
        """The next to be read of each source."""
        return dict(self._offsets)

    @property
    def alive(self) -> tuple[int, ...]:
        """The numbers of those that are left."""
        return self.results[-1].kept if self.results else tuple(range(len(self.contestants)))

    @property
    def done(self) -> bool:
        """Whether all rungs are over."""
        return len(self.results) == len(self.schedule.rungs)

    def resume(self) -> None:
        """Ends the chunk that was open when the process before this one was killed."""
        if self._chunk is not None:
            self._learn(self._chunk)

    def stop(self) -> None:
        """From any thread: learn no more, once the round in progress is durable."""
        self._stopped.set()

    def add(self, example: TrainingExample, source: str, next_offset: int) -> None:
        """Takes one example, read from `source`. A user counts once where examples are private,
        else each example counts. Raises EventInvalid for what the chat template refuses."""
        self._offsets[source] = next_offset
        unit = example.user if self._private else example.example_id
        if self.done or self._stopped.is_set() or unit in self._seen:
            return
        self.contestants[0].learner.encode(example)
        self._seen.add(unit)
        self._open.append(msgspec.structs.replace(example, user=unit))
        if len(self._open) == self.schedule.chunk:
            number = 0 if self._chunk is None else self._chunk.number + 1
            self._chunk = Chunk(number, tuple(self._open), dict(self._offsets))
            self._open = []
            write_chunk(self._chunk_path, self._chunk)
            self._learn(self._chunk)

    def close(self) -> None:
        """Takes all adapters off the model and closes the ledger."""
        # In turn: each has kept what the model was before it came.
        for contestant in reversed(self.contestants):
            contestant.close()
        self._store.close()

    def _learn(self, chunk: Chunk) -> None:
        for number in () if self.done else self.alive:
            candidate = self._rules.candidates[number]
            rungs = range(len(self.schedule.rungs))
            ends = {self.schedule.span(rung, candidate).stop - 1 for rung in rungs}
            first = chunk.number * self.schedule.in_chunk(candidate)
            self.contestants[number].learn(chunk, first, self._questions, ends, self._stopped)
        self.results = self._results()
        if self.done and chunk.examples:
            # What people wrote has been learned from, and is of no more use here.
            write_chunk(self._chunk_path, msgspec.structs.replace(chunk, examples=()))

    def _results(self) -> list[RungResult]:
        rounds = {number: one.rounds for number, one in enumerate(self.contestants)}
        return results(self._rules.candidates, self.schedule, rounds, last_only=self._private)
