"""The records of a drift and of what is done about it: written together, or not at all."""

from __future__ import annotations

from typing import Final

from agents.learning.controls import control_record
from agents.learning.model_change import change_record, made_live
from agents.monitor.drift.drifts import Drift
from agents.monitor.drift.rules import Verdict
from agents.monitor.settings import Action
from agents.monitor.versions import Versions
from agents.rounds.asked_round import asked_record
from schemas import codec, headers, limits
from schemas.events import DRIFT_DETECTED, Statistic
from schemas.topics import ANALYTICS
from streams.producer import Outgoing

SOURCE: Final = "/agents/monitor"


def records_of(
    drift: Drift, verdict: Verdict, versions: Versions, now_ms: int
) -> tuple[list[Outgoing], Statistic]:
    """What is to be written, and the statistic in it that tells of the drift.

    A version whose parent the topic no longer has is not rolled back; that is told as well.
    """
    event_id = drift_id(drift)
    records: list[Outgoing] = []
    taken: list[Action] = []
    for action in verdict.actions:
        record = _action(action, drift, verdict, versions, f"{event_id}/{action}")
        if record is not None:
            records.append(record)
            taken.append(action)
    told = _told(drift, verdict, tuple(taken), now_ms)
    made = headers.make_headers(ANALYTICS, event_id, SOURCE)
    key = f"{DRIFT_DETECTED}/{drift.model_version}/{drift.signal}"
    return [Outgoing(ANALYTICS, key, codec.checked(ANALYTICS, told), made), *records], told


def drift_id(drift: Drift) -> str:
    """The same for the same drift, however often it is found."""
    found = drift.detection
    return f"{drift.model_version}/{drift.signal}/{found.detector}/{found.window.end_ms}"


def _action(
    action: Action, drift: Drift, verdict: Verdict, versions: Versions, event_id: str
) -> Outgoing | None:
    reason = drift.said
    if action == "pause":
        return control_record(verdict.adapter, "paused", reason, event_id, SOURCE)
    if action == "federate":
        # Its id is the round's: asked for twice, it is done once.
        return asked_record(verdict.adapter, event_id.replace("/", "-"), reason)
    parent = versions.parent(drift.model_version, verdict.adapter)
    if parent is None:
        return None
    return change_record(made_live(parent, verdict.adapter, reason, back=True), event_id, SOURCE)


def _told(drift: Drift, verdict: Verdict, taken: tuple[Action, ...], now_ms: int) -> Statistic:
    found = drift.detection
    not_taken = [action for action in verdict.actions if action not in taken]
    reason = f"{not_taken[0]}: the parent is not known" if not_taken else verdict.reason
    return Statistic(
        name=DRIFT_DETECTED,
        window_start_ms=found.window.start_ms,
        window_end_ms=found.window.end_ms,
        labels={
            "model_version": drift.model_version,
            "signal": drift.signal,
            "detector": found.detector,
            "adapter": verdict.adapter,
            "actions": ",".join(taken),
            "reason": reason[: limits.LABEL_CHARS_MAX],
        },
        values={
            "mean": found.mean,
            "mean_reference": found.mean_reference,
            "observations": drift.observations,
            "windows": float(found.windows),
            "detected_ms": float(now_ms),
        },
    )
