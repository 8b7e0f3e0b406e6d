"""What an operator may set of the monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.drift.watch import DetectorName, Watch

Action = Literal["rollback", "pause", "federate"]

_WATCH: Final = Watch()


@dataclass(frozen=True, slots=True)
class Rules:
    """Which actions follow, and when they do not. Times are in milliseconds."""

    acts_on: DetectorName = "cusum"
    on_reward: tuple[Action, ...] = ()
    on_inputs: tuple[Action, ...] = ()
    observations_min: int = 100
    cooldown_ms: int = 3_600_000
    act_within_ms: int = 600_000


class MonitorSettings(BaseSettings):
    """Reads `HEADWATER_MONITOR_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_MONITOR_", frozen=True, extra="forbid")

    metrics_port: int = Field(9108, ge=1, le=65535, description="where Prometheus finds `/metrics`")
    metrics_host: str = Field("127.0.0.1", description="the address that `/metrics` listens on")
    history_h: float = Field(
        168.0, gt=0, description="how old windows may be that a start reads, to know what was usual"
    )
    stale_s: float = Field(
        900.0, gt=0, description="a figure is no longer shown so long after its window"
    )
    lag_interval_s: float = Field(15.0, gt=0, description="how often consumer lag is asked for")
    threshold: float = Field(
        _WATCH.threshold, gt=0, description="evidence for a drift that is enough, nats"
    )
    reference_min: int = Field(
        _WATCH.reference_min, ge=1, description="ratings before a fall can be found"
    )
    window_min: int = Field(
        _WATCH.window_min, ge=1, description="ratings in a window; smaller ones are put together"
    )
    acts_on: DetectorName = Field(
        "cusum", description="the detector whose findings the rules below act on"
    )
    on_reward_drift: str = Field(
        "",
        description="what is done when a live version's reward falls: `rollback`, `pause`, "
        "`federate`, with commas; default: it is told, no more",
    )
    on_input_drift: str = Field(
        "", description="the same when prompts or what is found for them change; no `rollback`"
    )
    observations_min: int = Field(
        _WATCH.observations_min,
        ge=1,
        description="observations since a change, before it is one and anything is done",
    )
    cooldown_s: float = Field(
        3600.0, ge=0, description="after an action on an adapter, before the next of its kind"
    )
    act_within_s: float = Field(
        600.0, gt=0, description="nothing is done about windows that ended longer ago"
    )

    @field_validator("on_reward_drift")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = set(_names(value)) - set(get_args(Action))
        if unknown:
            raise ValueError(f"there is no {', '.join(sorted(unknown))}")
        return value

    @field_validator("on_input_drift")
    @classmethod
    def _known_of_inputs(cls, value: str) -> str:
        if "rollback" in _names(cls._known(value)):
            raise ValueError("no version is the cause of what people ask: rollback does not help")
        return value

    @property
    def watch(self) -> Watch:
        """How streams are watched."""
        return Watch(self.threshold, self.reference_min, self.window_min, self.observations_min)

    @property
    def rules(self) -> Rules:
        """What follows from a detection."""
        return Rules(
            acts_on=self.acts_on,
            on_reward=_actions(self.on_reward_drift),
            on_inputs=_actions(self.on_input_drift),
            observations_min=self.observations_min,
            cooldown_ms=round(1_000 * self.cooldown_s),
            act_within_ms=round(1_000 * self.act_within_s),
        )


def _names(value: str) -> list[str]:
    return [name for part in value.split(",") if (name := part.strip())]


def _actions(value: str) -> tuple[Action, ...]:
    return tuple(action for action in get_args(Action) if action in _names(value))
