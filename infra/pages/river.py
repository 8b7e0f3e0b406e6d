"""The river: each topic's rate, and how far its reader is behind."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from infra.pages.river_watch import RiverWatch
from schemas.errors import HeadwaterError

_POLL_S: Final = 1.0


class River:
    """A table that moves."""

    def __init__(self, watch: RiverWatch) -> None:
        self._watch = watch
        with ui.column().classes("w-full max-w-3xl mx-auto"):
            self._state = ui.label("")
            self._table = (
                ui.table(
                    columns=[
                        {"name": name, "label": label, "field": name, "align": align}
                        for name, label, align in (
                            ("topic", "topic", "left"),
                            ("written", "offsets", "right"),
                            ("per_s", "a second", "right"),
                            ("waiting", "waiting for", "left"),
                        )
                    ],
                    rows=[],
                    row_key="topic",
                    pagination=0,
                )
                .props("dense flat hide-pagination wrap-cells")
                .classes("w-full")
            )
        ui.timer(_POLL_S, self._refresh, immediate=True)

    async def _refresh(self) -> None:
        try:
            flows = await self._watch.flows()
        except HeadwaterError as error:
            self._state.set_text(str(error))
            return
        self._state.set_text("")
        self._table.rows = [
            {
                "topic": flow.topic,
                "written": flow.written,
                "per_s": f"{flow.per_s:.1f}",
                "waiting": ", ".join(f"{group}: {lag}" for group, lag in flow.lags.items()),
            }
            for flow in flows
        ]
