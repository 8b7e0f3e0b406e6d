"""Learning: versions over time, privacy spent, the gate's verdicts, and the way back."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from nicegui import ui

from agents.gateway.errors import ApiError
from agents.learning.model_change import made_live, publish
from infra.pages.learning_state import LearningState, LearningWatch
from infra.pages.visitor import Visitor, tell
from schemas.errors import HeadwaterError
from schemas.events import ModelUpdate

_POLL_S: Final = 5.0
_SOURCE: Final = "/page"
_BASE: Final = "base"
_CHART: Final = {
    "xAxis": {"type": "time"},
    "yAxis": {"type": "value", "min": -1, "max": 1},
    "grid": {"left": 40, "right": 12, "top": 28, "bottom": 24},
    "legend": {"type": "scroll", "top": 0},
    "tooltip": {"trigger": "axis"},
    "series": [],
}


class Learning:
    """Figures that follow the topics."""

    def __init__(self, visitor: Visitor, watch: LearningWatch) -> None:
        self._visitor = visitor
        self._watch = watch
        self._state = LearningState()
        with ui.column().classes("w-full max-w-4xl mx-auto"):
            self._live = ui.label("").mark("live")
            self._budget = ui.linear_progress(0.0, show_value=False).props("size=12px")
            self._spent = ui.label("").mark("budget")
            ui.label("Reward by version").classes("text-lg")
            self._chart = ui.echart({**_CHART}).classes("w-full h-48").mark("reward")
            ui.label("Versions").classes("text-lg")
            self._versions = _table(
                "made", "version", "adapter", "origin", "parent", "reward", "loss", "epsilon"
            )
            ui.label("Rounds").classes("text-lg")
            self._rounds = _table("at", "version", "released", "loss", "epsilon")
            ui.label("Federated rounds").classes("text-lg")
            self._federated = _table("at", "round", "status", "devices", "failed", "version")
            ui.button("Roll back", icon="undo", on_click=self._roll_back).props("color=negative")
        ui.timer(_POLL_S, self._refresh, immediate=True)

    async def _refresh(self) -> None:
        try:
            state = self._state = await self._watch.state()
        except HeadwaterError as error:
            tell(error)
            return
        live = ", ".join(f"{u.model_version} ({name})" for name, u in state.live.items())
        self._live.set_text(f"Serving: {live or _BASE}")
        self._show_budget(state)
        self._draw(state)
        _fill(self._versions, [_version_row(update, state) for update in state.updates])
        _fill(self._rounds, [_round_row(r.window_end_ms, r.labels, r.values) for r in state.rounds])
        _fill(
            self._federated,
            [
                {
                    "at": _time(one.at_ms),
                    "round": one.round_id,
                    "status": one.status,
                    "devices": one.clients,
                    "failed": one.clients_failed,
                    "version": one.model_version,
                }
                for one in state.federated
            ],
        )

    def _draw(self, state: LearningState) -> None:
        """A line for each version's mean reward, window by window."""
        lines: dict[str, list[list[float]]] = {}
        for window in state.windows:
            points = lines.setdefault(window.labels["model_version"], [])
            points.append([window.window_end_ms, round(window.values["reward_mean"], 4)])
        series = [{"name": n, "type": "line", "data": points} for n, points in lines.items()]
        if self._chart.options["series"] != series:
            self._chart.options["series"] = series
            self._chart.update()

    def _show_budget(self, state: LearningState) -> None:
        values = state.rounds[-1].values if state.rounds else {}
        spent, limit = values.get("epsilon"), values.get("epsilon_limit")
        if spent is None or not limit:
            self._spent.set_text("No privacy is spent yet.")
            return
        self._budget.set_value(min(1.0, spent / limit))
        self._spent.set_text(f"ε {spent:.3f} of {limit:.3f} spent")

    async def _roll_back(self) -> None:
        try:
            self._visitor.may("operator")
        except ApiError as error:
            tell(error)
            return
        live = self._state.live
        if not live:
            ui.notify("Only the base model serves: there is nothing to go back from.")
            return
        parents = {
            adapter: parent
            for adapter, update in live.items()
            if (parent := self._state.parent_of(update)) is not None
        }
        if not parents:
            versions = ", ".join(update.model_version for update in live.values())
            ui.notify(f"Nothing is known to be before {versions}.")
            return
        with ui.dialog() as dialog, ui.card():
            for adapter, parent in parents.items():
                ui.label(f"Let {parent} serve again instead of {live[adapter].model_version}?")
                ui.button(
                    "Yes" if len(parents) == 1 else f"Yes, for {adapter}",
                    on_click=partial(dialog.submit, adapter),
                ).props("color=negative")
            ui.button("No", on_click=dialog.close).props("flat autofocus")
        if (chosen := await dialog) is not None:
            await self._make_live(chosen, parents[chosen])

    async def _make_live(self, adapter: str, version: str) -> None:
        known = self._state.known(version)
        if known is None and version != _BASE:
            ui.notify(f"The topic no longer has {version}: use `headwater models rollback`.")
            return
        target = known or ModelUpdate(adapter, _BASE, "base", 0)
        change = made_live(target, adapter, "rolled back on the page", back=True)
        try:
            await publish(self._visitor.gateway.kafka, change, _SOURCE)
        except HeadwaterError as error:
            tell(error)
            return
        ui.notify(f"{adapter} serves {version} again.", type="positive")
        await self._refresh()


def _version_row(update: ModelUpdate, state: LearningState) -> dict[str, Any]:
    spent = update.privacy.epsilon_total if update.privacy else None
    reward = state.rewards.get(update.model_version)
    return {
        "made": _time(update.published_ms),
        "version": update.model_version,
        "adapter": update.adapter,
        "origin": update.origin,
        "parent": update.parent_version or "",
        "reward": _figure(reward.mean if reward else None),
        "loss": _figure(update.evaluation.get("gate_loss")),
        "epsilon": _figure(spent),
    }


def _round_row(at_ms: int, labels: dict[str, str], values: dict[str, float]) -> dict[str, Any]:
    return {
        "at": _time(at_ms),
        "version": labels.get("model_version", ""),
        "released": labels.get("released", ""),
        "loss": _figure(values.get("gate_loss")),
        "epsilon": _figure(values.get("epsilon")),
    }


def _table(*names: str) -> ui.table:
    columns = [{"name": name, "label": name, "field": name, "align": "left"} for name in names]
    return ui.table(columns=columns, rows=[], pagination=8).props("dense flat").classes("w-full")


def _fill(table: ui.table, rows: list[dict[str, Any]]) -> None:
    """Newest first; only what changed is sent to the browser."""
    newest = list(reversed(rows))
    if table.rows != newest:
        table.rows = newest


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
