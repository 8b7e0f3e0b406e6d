"""What follows from a detection: plain rules, no Kafka and no clock of their own."""

from __future__ import annotations

from dataclasses import dataclass

from agents.monitor.drift.drifts import REWARD, Drift
from agents.monitor.settings import Action, Rules
from models.engine.protocol import BASE_VERSION
from schemas.events import ModelUpdate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done about a drift, and why nothing (more) is."""

    adapter: str
    actions: tuple[Action, ...]
    reason: str


class Judge:
    """Applies the rules. `acted` is told of every action, also of those before a restart."""

    def __init__(self, rules: Rules, adapter: str) -> None:
        """`adapter` is the one that learns: changes of what the base model is asked concern it."""
        self._rules = rules
        self._adapter = adapter
        self._acted_ms: dict[tuple[str, str], int] = {}

    def acted(self, adapter: str, action: str, at_ms: int) -> None:
        """An action was taken."""
        key = adapter, action
        self._acted_ms[key] = max(at_ms, self._acted_ms.get(key, 0))

    def judge(self, drift: Drift, live: dict[str, ModelUpdate], now_ms: int) -> Verdict:
        """`live` holds the newest record of each adapter."""
        serving = [a for a, update in live.items() if update.model_version == drift.model_version]
        adapter = serving[0] if serving else self._adapter
        rules = self._rules
        wanted = rules.on_reward if drift.signal == REWARD else rules.on_inputs
        why_not = self._why_not(drift, bool(serving), now_ms)
        if not wanted:
            return Verdict(adapter, (), "no rule asks for more than to tell")
        if why_not:
            return Verdict(adapter, (), why_not)
        cool = [a for a in wanted if not self._hot(adapter, a, now_ms)]
        reason = drift.said if cool else "the same was done within the cool-down"
        return Verdict(adapter, tuple(cool), reason)

    def _why_not(self, drift: Drift, serves: bool, now_ms: int) -> str:
        rules, found = self._rules, drift.detection
        if found.detector != rules.acts_on:
            return f"the rules act on {rules.acts_on}"
        if not serves and drift.model_version != BASE_VERSION:
            return "the version is not live any more"
        if drift.observations < rules.observations_min:
            return f"{drift.observations:.0f} observations are too few"
        if now_ms - found.window.end_ms > rules.act_within_ms:
            return "the windows are too old to act on"
        return ""

    def _hot(self, adapter: str, action: str, now_ms: int) -> bool:
        last = self._acted_ms.get((adapter, action))
        return last is not None and now_ms - last < self._rules.cooldown_ms
