"""Figures of what is no window: versions, whether adapters learn, federated rounds, dead letters,
lag."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter

from agents.learning.controls import read_control
from agents.monitor.board import Board
from agents.monitor.lag import Lag
from agents.monitor.rounds import FederatedFigures
from agents.monitor.versions import Versions
from models.engine.protocol import METRICS_PREFIX
from schemas import codec
from schemas.clock import now_ms
from schemas.errors import EventInvalid
from schemas.events import FEEDBACK_LATE, Statistic
from schemas.topics import DEAD_LETTERS, FEDERATED_ROUNDS
from streams.records import Record

_BURYING: Final = ("ingest", "retrieve", "generate", "join", "learn", "federate")
_INFO: Final = "model_version_info"

log = logging.getLogger("headwater.monitor")


class EventFigures:
    """Takes records of the topics that say what happened, one by one."""

    def __init__(self, board: Board) -> None:
        self.versions = Versions()
        self._board = board
        self._rounds = FederatedFigures(board)
        self._dead_letters = Counter(
            f"{METRICS_PREFIX}dead_letters",
            "Records that could not be processed, by agent.",
            ["agent"],
            registry=board.registry,
        )
        self._late = Counter(
            f"{METRICS_PREFIX}feedback_late",
            "Feedback that came when its window was closed.",
            registry=board.registry,
        )
        self._unmatched = Counter(
            f"{METRICS_PREFIX}feedback_unmatched",
            "Feedback that met no answer within the time allowed.",
            registry=board.registry,
        )
        for agent in _BURYING:
            # From 0 on, so that the first one counts as an increase.
            self._dead_letters.labels(agent)

    def take_update(self, record: Record) -> None:
        """A version goes live."""
        update = self.versions.take(record)
        if update is None:
            return
        labels = {
            "adapter": update.adapter,
            "model_version": update.model_version,
            "origin": update.origin,
        }
        at_ms, board = update.published_ms, self._board
        board.show(_INFO, "Which version serves an adapter.", labels, 1, at_ms, lasting=True)
        board.only(_INFO, "adapter", update.adapter, tuple(labels.values()))
        own = {"adapter": update.adapter}
        since = "model_version_timestamp_seconds"
        board.show(since, "Since when it serves.", own, at_ms / 1000, at_ms, lasting=True)
        if update.privacy is not None and update.privacy.epsilon_total is not None:
            meaning, spent = "Epsilon that an adapter has spent.", update.privacy.epsilon_total
            # What a rollback repeats is no news of what is spent.
            if update.origin != "rollback":
                board.show("privacy_epsilon_spent", meaning, own, spent, at_ms, lasting=True)

    def take_control(self, record: Record) -> None:
        """An adapter's learning is paused, or goes on."""
        control = read_control(record)
        if control is not None:
            paused, own = float(control.learning == "paused"), {"adapter": control.adapter}
            meaning = "Whether learning is paused."
            at_ms = control.at_ms
            self._board.show("learning_paused", meaning, own, paused, at_ms, lasting=True)

    def take_round(self, record: Record) -> None:
        """A federated round moves on."""
        try:
            self._rounds.take(codec.decode(FEDERATED_ROUNDS, record.value or b""))
        except EventInvalid as error:
            # federate buries it.
            log.warning("a federated round is left out: %s", error)

    def take_dead_letter(self, record: Record) -> None:
        """Something could not be processed; marks of replayed letters have no value."""
        if record.value is None:
            return
        try:
            agent = codec.decode(DEAD_LETTERS, record.value).agent
        except EventInvalid:
            agent = "unknown"
        self._dead_letters.labels(agent).inc()

    def count_late(self, statistic: Statistic) -> None:
        """Feedback that no window counts: late feedback is told piece by piece."""
        if statistic.name == FEEDBACK_LATE:
            self._late.inc(statistic.values.get("late", 0.0))
            self._unmatched.inc(statistic.values.get("unmatched", 0.0))

    def show_evidence(self, evidence: Iterable[tuple[str, str, float]]) -> None:
        """How near the cumulative sums are to a finding."""
        at_ms, meaning = now_ms(), "Evidence for a drift; over the threshold it is one, nats."
        for version, signal, nats in evidence:
            labels = {"model_version": version, "signal": signal}
            self._board.show("drift_evidence", meaning, labels, nats, at_ms)

    def show_lag(self, lags: list[Lag], members: dict[str, int]) -> None:
        """What Kafka says of the consumer groups."""
        at_ms = now_ms()
        for lag in lags:
            labels = {"group": lag.group, "topic": lag.topic}
            meaning = "Records that a consumer group has not done."
            self._board.show("consumer_lag", meaning, labels, lag.records, at_ms)
        for group, count in members.items():
            meaning = "Workers of a consumer group."
            self._board.show("consumer_members", meaning, {"group": group}, count, at_ms)
